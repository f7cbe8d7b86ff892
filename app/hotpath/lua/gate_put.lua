-- End a look: put the counts that were found, less what was taken since they were asked for.
-- KEYS  the gate's counts
-- ARGV  the generation, then for each item: its name, what was found, its count right before
-- Returns 1, or 0 where the counts are others by now
if redis.call('HGET', KEYS[1], ':generation') ~= ARGV[1] then
  return 0
end
for i = 2, #ARGV, 3 do
  local count, taken = redis.call('HGET', KEYS[1], ARGV[i]), 0
  if count and ARGV[i + 2] ~= '' then
    taken = math.max(0, ARGV[i + 2] - count)
  end
  redis.call('HSET', KEYS[1], ARGV[i], string.format('%.0f', ARGV[i + 1] - taken))
end
return 1
