-- accept: orders with their keys, first events and calls, all in one; what is returned are the keys that were
-- taken, with their answers where those were committed before this statement began. Keys come once each and in
-- one order from everybody, so that two gateways wait for each other in one direction only.
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::bytea[], $7::text[],
        $8::text[], $9::text[], $10::text[], $11::bigint[], $12::text[], $13::text[], $14::text[], $15::text[],
        $16::text[], $17::text[], $18::bytea[], $19::timestamptz[], $20::text[])
    AS a (caller, route, key, body_hash, location, answer, id, customer_id, currency, lines, total, payment,
        payment_method, metadata, shipping_address, correlation_id, traceparent, hash, created_at, data)
), claimed AS (
    INSERT INTO idempotency (caller, route, key, body_hash, status, location, answer)
    SELECT caller, route, key, body_hash, 202, location, answer FROM asked
    ON CONFLICT DO NOTHING RETURNING caller, route, key
), ours AS MATERIALIZED (
    SELECT asked.* FROM asked JOIN claimed USING (caller, route, key)
), placed AS (
    INSERT INTO orders (id, customer_id, status, currency, lines, total, payment, payment_method, stock,
        metadata, shipping_address, correlation_id, traceparent, version, last_hash, created_at, updated_at)
    SELECT id, customer_id, 'accepted', currency, lines::jsonb, total, payment::jsonb, payment_method, 'none',
        metadata::jsonb, shipping_address::jsonb, correlation_id, traceparent, 1, hash, created_at, created_at
    FROM ours
), happened AS (
    INSERT INTO events (subject, sequence, type, time, correlation_id, traceparent, data, hash)
    SELECT id, 1, 'order.accepted.v1', created_at, correlation_id, traceparent, data::json, hash FROM ours
), announced AS (
    INSERT INTO event_outbox (subject, sequence) SELECT id, 1 FROM ours
), called AS (
    INSERT INTO workflow_outbox (order_id, kind) SELECT id, 'start' FROM ours
)
SELECT caller, route, key, i.body_hash, i.status, i.location, i.answer
FROM asked LEFT JOIN idempotency i USING (caller, route, key)
WHERE NOT EXISTS (
    SELECT FROM claimed c WHERE (c.caller, c.route, c.key) = (asked.caller, asked.route, asked.key)
);

-- set_cancel_reason: what the caller said; it stays here and goes into no event
UPDATE orders SET cancel_reason = $2 WHERE id = $1;

-- call: tell the order's workflow something, once this transaction is committed
INSERT INTO workflow_outbox (order_id, kind, detail) VALUES ($1, $2, $3);
