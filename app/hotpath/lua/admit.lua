-- Admit one request: the caller's limit, then the stored answer to its key, then the sold-out gate.
-- A caller over its limit learns nothing else, and a repetition takes nothing from the gate.
-- KEYS  the limit, the stored answer, the gate's counts, what passed while there were no counts
-- ARGV  interval and window of the limit (microseconds), the body's SHA-256, the items, as many quantities
-- Returns a number below 0: over the limit, so many microseconds before the next one passes
--         a number: passed; the requests left * 4, + 2 where there are counts, + 1 where they have every item
--         {1, left, answer}: an empty answer is that of a request that is under way, or was refused
--         {2, left}: the key was used for another body
--         {3, left, ...}: too few, by number of the item; below 0 where there are some; nothing was taken
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
used_until = used_until + interval
local left = now + window - used_until + 0.5 -- half a microsecond for what floats lose
if left < 0 then
  return math.floor(left)
end
redis.call('SET', KEYS[1], string.format('%.3f', used_until), 'PX', math.ceil((used_until - now) / 1000))
left = math.floor(left / interval)

local answer = redis.call('GET', KEYS[2])
if answer then
  if string.sub(answer, 1, 32) == ARGV[3] then
    return {1, left, string.sub(answer, 33)}
  end
  return {2, left}
end

local items = (#ARGV - 3) / 2
local counts = redis.call('HMGET', KEYS[3], ':generation', unpack(ARGV, 4, 3 + items))
if not counts[1] then
  -- No counts: let it pass, and remember it for whoever is counting right now.
  if redis.call('HLEN', KEYS[4]) < 10000 then
    for i = 4, 3 + items do
      redis.call('HINCRBY', KEYS[4], ARGV[i], ARGV[items + i])
    end
    redis.call('PEXPIRE', KEYS[4], 5000)
  end
  redis.call('SET', KEYS[2], ARGV[3], 'PX', 15000) -- as below: the counts may be there when a repetition comes
  return left * 4
end
local known, short, taken = 3, nil, {}
for i = 1, items do
  local count, wanted = counts[i + 1], tonumber(ARGV[3 + items + i])
  if not count then
    known = 2
  elseif tonumber(count) < wanted then
    short = short or {3, left}
    short[#short + 1] = tonumber(count) > 0 and -i or i
  else
    taken[#taken + 1] = ARGV[3 + i]
    taken[#taken + 1] = string.format('%.0f', count - wanted)
  end
end
if short then
  return short
end
if taken[1] then -- in one command, because each is written to the server's log and sent to its replicas
  redis.call('HSET', KEYS[3], unpack(taken))
end
-- It may have taken the last piece: until it is answered, a repetition of it must not be told "sold out".
redis.call('SET', KEYS[2], ARGV[3], 'PX', 15000)
return left * 4 + known
