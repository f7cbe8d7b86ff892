-- Take requests of a caller's limit in advance, as many as are left, at most as many as are wanted.
-- KEYS  the limit   ARGV  its interval and window (microseconds), how many are wanted
-- Returns a number below 0: none is left, so many microseconds before there is one
--         {taken, left}
local time = redis.call('TIME')
local now = (time[1] - 1767225600) * 1000000 + time[2]
local interval, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local used_until = tonumber(redis.call('GET', KEYS[1]) or now)
if used_until < now then
  used_until = now
elseif used_until > now + window then -- the server's clock was set back, or somebody else wrote there
  used_until = now + window
  redis.call('SET', KEYS[1], string.format('%.3f', used_until), 'PX', math.ceil(window / 1000))
end
local room = now + window - used_until + 0.5 -- half a microsecond for what floats lose
local left = math.floor(room / interval)
if left < 1 then
  return math.floor(room - interval)
end
local taken = math.min(left, tonumber(ARGV[3]))
used_until = used_until + taken * interval
redis.call('SET', KEYS[1], string.format('%.3f', used_until), 'PX', math.ceil((used_until - now) / 1000))
return {taken, left - taken}
