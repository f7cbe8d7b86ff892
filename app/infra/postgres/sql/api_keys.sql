-- find: the key with this hash, unless it was revoked
SELECT id, name, scopes, customer_id, rate_limit_per_s FROM api_keys WHERE hash = $1 AND revoked_at IS NULL;

-- add: a key, unless there is one with this hash
INSERT INTO api_keys (id, name, hash, scopes, customer_id, rate_limit_per_s) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (hash) DO NOTHING RETURNING id;

-- widen: let the key with this hash open at least this
UPDATE api_keys SET scopes = ARRAY(SELECT unnest(scopes) UNION SELECT unnest($2::text[]) ORDER BY 1)
WHERE hash = $1 AND NOT scopes @> $2;

-- list: all keys, oldest first
SELECT id, name, scopes, customer_id, rate_limit_per_s, created_at, revoked_at
FROM api_keys ORDER BY created_at, id;

-- revoke: from now on this key opens nothing
UPDATE api_keys SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL RETURNING id;
