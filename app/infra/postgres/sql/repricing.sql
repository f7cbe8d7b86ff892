-- note: what one order knows of its adjustments
UPDATE orders SET price_adjustments = $2 WHERE id = $1;

-- insert: one adjustment
INSERT INTO price_adjustments (order_id, replay_id, id, price_list, sequence, currency, total_before, total_after,
    created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- read: some orders as they are now
SELECT * FROM orders WHERE id = ANY ($1::text[]) ORDER BY id;

-- lock: the same, locked until the transaction ends, in one order by everybody, and the database's clock
SELECT *, clock_timestamp() AS now FROM orders WHERE id = ANY ($1::text[]) ORDER BY id FOR NO KEY UPDATE;

-- adjust: orders as they are now, their adjustments, and their events with their places in the outbox
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::text[],
        $8::bytea[], $9::bytea[], $10::text[], $11::text[], $12::text[], $13::bigint[], $14::bigint[])
        WITH ORDINALITY
        AS a (id, version, type, at, correlation_id, traceparent, data, previous_hash, hash, adjustments,
            adjustment, currency, total_before, total_after, n)
), changed AS (
    UPDATE orders SET price_adjustments = asked.adjustments::jsonb, version = asked.version,
        last_hash = asked.hash, updated_at = asked.at
    FROM asked WHERE orders.id = asked.id
), happened AS (
    INSERT INTO events (subject, sequence, type, time, correlation_id, traceparent, data, previous_hash, hash)
    SELECT id, version, type, at, correlation_id, traceparent, data::json, previous_hash, hash FROM asked
), recorded AS (
    INSERT INTO price_adjustments (order_id, replay_id, id, price_list, sequence, currency, total_before,
        total_after, created_at)
    SELECT id, $15, adjustment, $16, version, currency, total_before, total_after, at FROM asked
)
INSERT INTO event_outbox (subject, sequence) SELECT id, version FROM asked ORDER BY n;

-- begin: a replay looks at orders up to now, but for those that may not be visible yet, or up to an earlier moment
INSERT INTO repricings (replay_id, until, adjustments)
VALUES ($1, least($2, clock_timestamp() - make_interval(secs => $3)), 0)
RETURNING until;

-- begun: up to when a replay looks, and how many adjustments there were
SELECT until, adjustments FROM repricings WHERE replay_id = $1;

-- note_adjustments: how many there are before anything is read
UPDATE repricings SET adjustments = $2 WHERE replay_id = $1;

-- count: orders accepted in a span, and the adjustments that they have
SELECT count(*) AS orders, coalesce(sum(jsonb_array_length(price_adjustments)), 0)::bigint AS adjustments
FROM orders
WHERE id >= $1 AND id < $2 AND created_at >= $3 AND created_at < $4 AND ($5::text IS NULL OR id = $5);

-- page: the next orders accepted in a span, behind an id, with their lines
SELECT id, lines FROM orders
WHERE id >= $1 AND id < $2 AND created_at >= $3 AND created_at < $4 AND ($5::text IS NULL OR id = $5)
    AND id > $6
ORDER BY id LIMIT $7;

-- leave_out: orders that cannot be adjusted
INSERT INTO repricing_left_out (replay_id, order_id, code, detail)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[]);

-- left_out: how many were left out, by their codes, with the first of each
SELECT code, count(*) AS orders, (array_agg(order_id || ': ' || detail ORDER BY order_id))[1:$2] AS first
FROM repricing_left_out WHERE replay_id = $1 GROUP BY code ORDER BY code;
