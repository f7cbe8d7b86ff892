-- Whose is this database? In one step, so that of two environments that find it empty one marks it and the other
-- sees that. It is nobody else's where no key of another environment is in it.
-- KEYS[1] our marker
-- ARGV: our environment, what our keys start with, '1' where nobody's may be marked as ours, how many keys SCAN looks
-- at in one call, and how many calls there are at most: nobody else is served meanwhile
-- Returns what was found, and a text:
--   marker   what our marker says, which may have been written just now
--   keys     the environment of a key that is not ours
--   nothing  it is nobody else's; why it could not be marked, or '' where it may not be
--   much     more keys than are looked at, and none of them ours or another environment's
local says = redis.call('GET', KEYS[1])
if says then
    return {'marker', says}
end
local before, has_ours, cursor = ARGV[2], false, '0'
for _ = 1, tonumber(ARGV[5]) do
    local page = redis.call('SCAN', cursor, 'MATCH', 'hf:*:*', 'COUNT', ARGV[4])
    cursor = page[1]
    for _, key in ipairs(page[2]) do
        if string.sub(key, 1, #before) ~= before then
            return {'keys', string.match(key, '^hf:([^:]*)')}
        end
        has_ours = true
    end
    if cursor == '0' then
        break
    end
end
if cursor ~= '0' and not has_ours then
    return {'much', ''}
end
if ARGV[3] ~= '1' then
    return {'nothing', ''}
end
local written = redis.pcall('SET', KEYS[1], ARGV[1])
if written.err then
    return {'nothing', written.err}
end
return {'marker', ARGV[1]}
