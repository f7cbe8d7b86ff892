-- Let new counts be the gate's, less what passed while they were made.
-- KEYS  the lock of whoever rebuilds, the new counts, the gate's counts, what passed while there were none
-- ARGV  the lock's token, the new generation, the server's run id
-- Returns the items that passed meanwhile, or false where the lock is somebody else's by now
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  redis.call('UNLINK', KEYS[2])
  return false
end
local passed, items = redis.call('HGETALL', KEYS[4]), {}
for i = 1, #passed, 2 do
  if redis.call('HEXISTS', KEYS[2], passed[i]) == 1 then
    redis.call('HINCRBY', KEYS[2], passed[i], string.format('%.0f', -passed[i + 1]))
    items[#items + 1] = passed[i]
  end
end
redis.call('HSET', KEYS[2], ':generation', ARGV[2], ':server', ARGV[3])
-- A value of more than 64 bytes makes a small hash a table, too: in a list each count would be searched for.
redis.call('HSET', KEYS[2], ':note', 'Pieces of each item that may still be ordered. Advice only: the database decides.')
redis.call('PERSIST', KEYS[2])
redis.call('UNLINK', KEYS[3], KEYS[4])
redis.call('RENAME', KEYS[2], KEYS[3])
redis.call('DEL', KEYS[1])
return items
