-- What the hot path needs: limits of single keys, and the truth behind locks that must be exclusive.

-- Requests a second that a key may make under each policy; null: what the gateway's setting says.
ALTER TABLE api_keys ADD COLUMN rate_limit_per_s integer CHECK (rate_limit_per_s BETWEEN 1 AND 1000000);

-- Fencing: every holder of a lock takes a token from here, greater than all before it. What must be exclusive
-- writes its token beside what it writes, and whoever comes with an older one is refused.
CREATE SEQUENCE fencing_tokens;
CREATE TABLE fences (
    name  text PRIMARY KEY,
    token bigint NOT NULL                           -- the newest that has written under this name
);
