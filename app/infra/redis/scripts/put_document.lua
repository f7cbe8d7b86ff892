-- Put an order's document, unless a newer one is there.
-- KEYS[1] the document   ARGV: version, last change (microseconds), document, lifetime (milliseconds)
-- Stored as "<version> <microseconds>\n<document>". What an order waits for changes without a new version,
-- so equal versions are told apart by their time. Returns 1 when it was put.
local header = redis.call('GETRANGE', KEYS[1], 0, 63)
if header ~= '' then
  local version, changed = string.match(header, '^(%d+) (%d+)\n')
  if version then
    version, changed = tonumber(version), tonumber(changed)
    local new_version, new_changed = tonumber(ARGV[1]), tonumber(ARGV[2])
    if version > new_version or (version == new_version and changed > new_changed) then
      return 0
    end
  end
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2] .. '\n' .. ARGV[3], 'PX', ARGV[4])
return 1
