-- Take the lock, or stand in line for it. Whoever asks again keeps what it has, so asking twice does no harm.
-- lock_pass.lua and lock_wait.lua follow: what is made there costs nothing where the lock is free.
-- KEYS: held, tokens. ARGV: owner, lifetime in ms, and "wait" (stand in line), "again" (it stands there
-- already) or "".
-- The token (> 0), or -1 - (ms until the present holder's lifetime ends).

if ARGV[3] ~= 'again' and redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return redis.call('INCR', KEYS[2])
end
