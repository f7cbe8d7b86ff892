-- In the middle of the scripts that give a lock away. The keys of a lock, all in one slot:
--   …:held:<name>   who has it, with the lifetime; a "+" behind the owner says that others wait
--   …:queue:<name>  the owners that wait, in order
--   …:tokens        the last fencing token that was given with any lock of this slot
-- Only what every call uses is declared, because each declared key costs every call; the hash tag keeps the
-- others beside it.

local CLAIM_MS = 1000   -- within which a lock that was handed over must be claimed
local QUEUE_MS = 30000  -- that a queue outlives the last word from any waiter

local function queue_of(held)
  return (string.gsub(held, '}:held:', '}:queue:', 1))
end

-- Give the lock to the first waiter that lives. A wake that reaches no receiver says that the waiter's process
-- is gone. `me` runs this script, so it needs no wake, and takes the lock for its whole lifetime.
-- The token if the lock went to `me`, 0 if it went to another, nil if nobody waits.
local function pass(me, lifetime_ms)
  local queue, slot = queue_of(KEYS[1]), string.match(KEYS[1], '^[^}]*}')
  while true do
    local waiter = redis.call('LPOP', queue)
    if not waiter then return nil end
    local holder = waiter
    if redis.call('EXISTS', queue) == 1 then holder = waiter .. '+' end
    if waiter == me then
      redis.call('SET', KEYS[1], holder, 'PX', lifetime_ms)
      return redis.call('INCR', slot .. ':tokens')
    end
    local channel = string.match(slot, '^[^{]*') .. 'wake:' .. string.match(waiter, '^[^.]*')
    if redis.call('PUBLISH', channel, waiter .. ' ' .. KEYS[1]) > 0 then
      redis.call('SET', KEYS[1], holder, 'PX', CLAIM_MS)
      return 0 -- it asks again, and is given its token then
    end
  end
end
