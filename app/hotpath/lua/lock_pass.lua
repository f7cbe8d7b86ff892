-- Put in front of the scripts that give a lock away.
--
-- A lock is three keys in one slot, named after KEYS[1]:
--   KEYS[1]              who has it, with the lifetime; a "+" behind the name says that others wait
--   KEYS[1] .. ':tokens' how often it was given away: the last fencing token
--   KEYS[1] .. ':queue'  the owners that wait, in order
-- Only the first is declared: the hash tag keeps the others beside it, and each declared key costs every call.

local CLAIM_MS = 1000   -- within which a lock that was handed over must be claimed
local QUEUE_MS = 30000  -- that the queue outlives the last word from any waiter

-- Give the lock to the first waiter that lives. A wake that reaches no receiver says that the waiter's process
-- is gone. `me` runs this script, so it needs no wake, and takes the lock for its whole lifetime.
-- The token if the lock went to `me`, 0 if it went to another, nil if nobody waits.
local function pass(me, lifetime_ms)
  local queue, tokens = KEYS[1] .. ':queue', KEYS[1] .. ':tokens'
  while true do
    local waiter = redis.call('LPOP', queue)
    if not waiter then return nil end
    local holder = waiter
    if redis.call('EXISTS', queue) == 1 then holder = waiter .. '+' end
    if waiter == me then
      redis.call('SET', KEYS[1], holder, 'PX', lifetime_ms)
      return redis.call('INCR', tokens)
    end
    local channel = string.gsub(KEYS[1], '{lock:.*$', 'wake:') .. string.match(waiter, '^[^.]*')
    if redis.call('PUBLISH', channel, waiter .. ' ' .. KEYS[1]) > 0 then
      redis.call('SET', KEYS[1], holder, 'PX', CLAIM_MS)
      redis.call('INCR', tokens)
      return 0
    end
  end
end
