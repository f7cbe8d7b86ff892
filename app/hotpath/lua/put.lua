-- Put a value into the cache, unless a newer one is there or its time has passed on the way.
-- KEYS[1] the key
-- ARGV: version, change within the version, when it was loaded, when it is gone (both in microseconds of this
--       server's clock), the value with its header
-- A value is "<version> <change> <loaded> <fresh until> <gone at> <cost>\n<body>". Whatever is there and does
-- not look like that is replaced. Returns {1 put | 0 a newer one is there | -1 too late, this server's clock}.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local version, change = tonumber(ARGV[1]), tonumber(ARGV[2])
local loaded, gone = tonumber(ARGV[3]), tonumber(ARGV[4])
-- Never longer than it was given, should the clock have been set back since it was reckoned with.
local milliseconds = math.floor(math.min(gone - now, gone - loaded) / 1000)
if milliseconds < 1 then
  return {-1, now}
end
local header = redis.pcall('GETRANGE', KEYS[1], 0, 127)
if type(header) == 'string' and header ~= '' then
  local its_version, its_change, its_loaded = string.match(header, '^(%d+) (%d+) (%d+) %d+ %d+ %d+\n')
  if its_version then
    its_version, its_change, its_loaded = tonumber(its_version), tonumber(its_change), tonumber(its_loaded)
    local is_newer = its_version > version
      or (its_version == version and its_change > change)
      or (its_version == version and its_change == change and its_loaded > loaded)
    if is_newer and its_loaded <= now then -- one from the future was written before the clock was set back
      return {0, now}
    end
  end
end
redis.call('SET', KEYS[1], ARGV[5], 'PX', milliseconds)
return {1, now}
