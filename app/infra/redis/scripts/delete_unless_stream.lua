-- Delete a key that holds something else than a stream, in one step, so that never a stream is deleted.
-- KEYS[1] the key   Returns 1 when it was deleted.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'stream' or kind == 'none' then
  return 0
end
return redis.call('DEL', KEYS[1])
