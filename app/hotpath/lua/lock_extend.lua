-- Begin the lifetime anew. KEYS: held. ARGV: owner, lifetime in ms. 1, or 0 when the lock is not the owner's.

local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] or holder == ARGV[1] .. '+' then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
