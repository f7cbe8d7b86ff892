-- Correct the counts of some items.
-- KEYS  the gate's counts, what passed while there were none
-- ARGV  'back' where pieces that were taken are given back, else 'more'; then items and numbers by turns
-- An item without a count gets one where there is more of it: it is new, and a crowd may wait for it. What it
-- had before, if anything, is added by the look that follows. Returns 1, or 0 where there are no counts.
if redis.call('HEXISTS', KEYS[1], ':generation') == 1 then
  for i = 2, #ARGV, 2 do
    local is_more = ARGV[1] == 'more' and tonumber(ARGV[i + 1]) > 0
    if is_more or redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
      redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
    end
  end
  return 1
end
if ARGV[1] == 'back' then
  for i = 2, #ARGV, 2 do
    if redis.call('HEXISTS', KEYS[2], ARGV[i]) == 1 then
      redis.call('HINCRBY', KEYS[2], ARGV[i], '-' .. ARGV[i + 1])
    end
  end
end
return 0
