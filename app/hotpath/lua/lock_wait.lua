-- The rest of lock_acquire.lua: the lock is somebody's, perhaps ours already, or others were there before us.

local owner, lifetime_ms = ARGV[1], ARGV[2]
local holder = redis.call('GET', KEYS[1])
if holder == owner or holder == owner .. '+' then
  redis.call('PEXPIRE', KEYS[1], lifetime_ms)
  return redis.call('INCR', KEYS[2])
end

if ARGV[3] ~= '' then
  local queue = queue_of(KEYS[1])
  if not redis.call('LPOS', queue, owner) then redis.call('RPUSH', queue, owner) end
  redis.call('PEXPIRE', queue, QUEUE_MS)
  if not holder then
    local token = pass(owner, lifetime_ms)
    if token > 0 then return token end
  elseif string.sub(holder, -1) ~= '+' then
    redis.call('APPEND', KEYS[1], '+')
  end
end
return -1 - math.max(0, redis.call('PTTL', KEYS[1]))
