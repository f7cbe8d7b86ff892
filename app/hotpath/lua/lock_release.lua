-- Give the lock back, to the first who waits; or leave the line. Doing it twice does no harm.
-- lock_pass.lua and lock_hand_over.lua follow: what is made there costs nothing where nobody waits.
-- KEYS: held. ARGV: owner, and who stands in line for the same process (so it needs no wake), with the
-- lifetime in ms that it wants.
-- 1: given back, 0: it was not the owner's, -token: it went to the one named.

local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then return redis.call('DEL', KEYS[1]) end
