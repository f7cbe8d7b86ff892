-- Begin to look again at some items: each at most once in a while, whoever asks.
-- KEYS  the gate's counts, then a key for each item
-- ARGV  how long an item is left alone (milliseconds), then the items
-- Returns the generation (false: there are no counts, nothing was begun) and for each item its count, an
-- empty text where it has none, false where somebody looked just now
local generation = redis.call('HGET', KEYS[1], ':generation')
if not generation then
  return {false}
end
local reply = {generation}
for i = 2, #KEYS do
  reply[i] = false
  local left = redis.call('PTTL', KEYS[i])
  if left == -1 or left > tonumber(ARGV[1]) then -- somebody else wrote there, or the clock was set back
    redis.call('DEL', KEYS[i])
  end
  if redis.call('SET', KEYS[i], '', 'NX', 'PX', ARGV[1]) then
    reply[i] = redis.call('HGET', KEYS[1], ARGV[i]) or ''
  end
end
return reply
