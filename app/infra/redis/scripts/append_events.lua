-- Append events to the stream of a shard, for whoever has that shard.
-- KEYS: the stream; where the newest token that has written to it is kept
-- ARGV: the writer's token (0: it has none), for how many seconds it is remembered, the channel of live events, the
-- field, and the envelopes in order
-- Returns how many are appended: all of them, or -1 where a newer owner of the shard has been here.
local token = tonumber(ARGV[1])
local newest = tonumber(redis.pcall('GET', KEYS[2]) or 0) or 0
if token > 0 and token < newest then
    return -1
end
-- Who follows live is told first: a server without memory still tells, and refuses what comes now.
for at = 5, #ARGV do
    redis.call('PUBLISH', ARGV[3], ARGV[at])
end
if token > 0 then
    redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
end
for at = 5, #ARGV do
    redis.call('XADD', KEYS[1], '*', ARGV[4], ARGV[at])
end
return #ARGV - 4
