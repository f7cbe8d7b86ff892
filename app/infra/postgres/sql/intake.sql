-- accept: one order with its key, first event and calls, or nothing where the key is taken
WITH claimed AS (
    INSERT INTO idempotency (caller, route, key, body_hash, status, location, answer)
    VALUES ($1, $2, $3, $4, 202, $5, $6)
    ON CONFLICT DO NOTHING RETURNING true
), placed AS (
    INSERT INTO orders (id, customer_id, status, currency, lines, total, payment, payment_method, stock,
        metadata, shipping_address, correlation_id, traceparent, version, last_hash, created_at, updated_at)
    SELECT $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, 1, $20, $21, $21 FROM claimed
), happened AS (
    INSERT INTO events (subject, sequence, type, time, correlation_id, traceparent, data, hash)
    SELECT $7, 1, $22, $21, $18, $19, $23::json, $20 FROM claimed
), announced AS (
    INSERT INTO event_outbox (subject, sequence) SELECT $7, 1 FROM claimed
), called AS (
    INSERT INTO workflow_outbox (order_id, kind) SELECT $7, 'start' FROM claimed
)
SELECT count(*) FROM claimed;

-- answer: the stored answer to a key
SELECT body_hash, status, location, answer FROM idempotency WHERE caller = $1 AND route = $2 AND key = $3;

-- store_answer: claim a key together with its answer, or nothing where the key is taken
INSERT INTO idempotency (caller, route, key, body_hash, status, location, answer)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING true;

-- forget_answers: answers older than their lifetime, a bounded number at a time
DELETE FROM idempotency WHERE ctid IN (
    SELECT ctid FROM idempotency WHERE created_at < now() - interval '30 days' LIMIT $1
);

-- set_cancel_reason: what the caller said; it stays here and goes into no event
UPDATE orders SET cancel_reason = $2 WHERE id = $1;

-- call: tell the order's workflow something, once this transaction is committed
INSERT INTO workflow_outbox (order_id, kind, detail) VALUES ($1, $2, $3);
