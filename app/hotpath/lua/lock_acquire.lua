-- Take the lock, or stand in line for it. Whoever asks again keeps what it has, so asking twice does no harm.
-- KEYS: held, tokens. ARGV: owner, lifetime in ms, and "wait" (stand in line), "again" (it stands there
-- already) or "".
-- The token (> 0), or -1 - (ms until the present holder's lifetime ends).

local owner, lifetime_ms, stands = ARGV[1], ARGV[2], ARGV[3]

if stands ~= 'again' and redis.call('SET', KEYS[1], owner, 'NX', 'PX', lifetime_ms) then
  return redis.call('INCR', KEYS[2])
end

local holder = redis.call('GET', KEYS[1])
if holder == owner or holder == owner .. '+' then
  redis.call('PEXPIRE', KEYS[1], lifetime_ms)
  return redis.call('INCR', KEYS[2])
end

if stands ~= '' then
  local queue = queue_of(KEYS[1])
  if not redis.call('LPOS', queue, owner) then redis.call('RPUSH', queue, owner) end
  redis.call('PEXPIRE', queue, QUEUE_MS)
  if not holder then
    local token = pass(owner, lifetime_ms)
    if token > 0 then return token end
  elseif string.sub(holder, -1) ~= '+' then
    redis.call('APPEND', KEYS[1], '+')
  end
end
return -1 - math.max(0, redis.call('PTTL', KEYS[1]))
