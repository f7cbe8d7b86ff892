-- answers: the stored answers to some keys
SELECT caller, route, key, body_hash, status, location, answer
FROM unnest($1::text[], $2::text[], $3::text[]) AS asked (caller, route, key)
JOIN idempotency USING (caller, route, key);

-- store_answer: claim a key together with its answer, or nothing where the key is taken
INSERT INTO idempotency (caller, route, key, body_hash, status, location, answer)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING true;

-- forget_answers: answers older than their lifetime, a bounded number at a time
DELETE FROM idempotency WHERE ctid IN (
    SELECT ctid FROM idempotency WHERE created_at < now() - interval '30 days' LIMIT $1
);
