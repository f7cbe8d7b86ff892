-- Forget a consumer that holds nothing (a consumer that is forgotten takes what it holds with it).
-- KEYS[1] the stream   ARGV: group, consumer, for how long it must have been idle (milliseconds)
local groups = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if groups.err then
  return 0
end
for _, fields in ipairs(groups) do
  local consumer = {}
  for i = 1, #fields, 2 do
    consumer[fields[i]] = fields[i + 1]
  end
  if consumer.name == ARGV[2] and consumer.pending == 0 and consumer.idle >= tonumber(ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
    return 1
  end
end
return 0
