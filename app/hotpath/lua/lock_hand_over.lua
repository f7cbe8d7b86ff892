-- The rest of lock_release.lua: others wait, or the lock is not the owner's.

if holder ~= ARGV[1] .. '+' then
  redis.call('LREM', queue_of(KEYS[1]), 0, ARGV[1])
  if not holder then pass() end -- it was lost, and nobody else would wake those who wait
  return 0
end

local token = pass(ARGV[2], ARGV[3])
if not token then return redis.call('DEL', KEYS[1]) end
if token > 0 then return -token end
return 1
