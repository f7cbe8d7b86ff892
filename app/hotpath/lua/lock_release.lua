-- Give the lock back, to the first who waits; or leave the line. Doing it twice does no harm.
-- KEYS: held, tokens. ARGV: owner, and who stands in line for the same process (so it needs no wake), with the
-- lifetime in ms that it wants.
-- 1: given back, 0: it was not the owner's, -token: it went to the one named.

local owner = ARGV[1]
local holder = redis.call('GET', KEYS[1])
if holder == owner then return redis.call('DEL', KEYS[1]) end
if holder ~= owner .. '+' then
  redis.call('LREM', queue_of(KEYS[1]), 0, owner)
  if not holder then pass() end -- it was lost, and nobody else would wake those who wait
  return 0
end

local token = pass(ARGV[2], ARGV[3])
if not token then return redis.call('DEL', KEYS[1]) end
if token > 0 then return -token end
return 1
