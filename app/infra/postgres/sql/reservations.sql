-- lock_free_orders: some orders, locked until the transaction ends, without those that somebody else has
SELECT *, clock_timestamp() AS now FROM orders
WHERE id = ANY ($1::text[]) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED;

-- lock_orders: some orders, locked until the transaction ends, and the database's clock
SELECT *, clock_timestamp() AS now FROM orders WHERE id = ANY ($1::text[]) ORDER BY id FOR NO KEY UPDATE;

-- read_shelves: the shelves of some SKUs
SELECT sku, warehouse, on_hand - reserved AS available FROM stock WHERE sku = ANY ($1::text[]);

-- lock_shelves: the shelves of some SKUs, locked in one order by everybody
SELECT sku, warehouse, on_hand - reserved AS available FROM stock
WHERE sku = ANY ($1::text[]) ORDER BY sku, warehouse FOR NO KEY UPDATE;

-- write: orders as they are now, their pieces on each shelf, and their events with their places in the outbox
WITH changed AS (
    UPDATE orders SET status = n.status, stock = n.stock, fulfilments = n.fulfilments::jsonb,
        reason = n.reason::jsonb, waiting_on = NULL, version = n.version, last_hash = n.last_hash,
        updated_at = n.updated_at
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::bytea[],
        $8::timestamptz[])
        AS n (id, status, stock, fulfilments, reason, version, last_hash, updated_at)
    WHERE orders.id = n.id
), happened AS (
    INSERT INTO events (subject, sequence, type, time, correlation_id, traceparent, data, previous_hash, hash)
    SELECT e.subject, e.sequence, e.type, e.time, e.correlation_id, e.traceparent, e.data::json,
        e.previous_hash, e.hash
    FROM unnest($9::text[], $10::int[], $11::text[], $12::timestamptz[], $13::text[], $14::text[], $15::text[],
        $16::bytea[], $17::bytea[])
        AS e (subject, sequence, type, time, correlation_id, traceparent, data, previous_hash, hash)
), held AS (
    INSERT INTO reservations (order_id, sku, warehouse, quantity)
    SELECT * FROM unnest($18::text[], $19::text[], $20::text[], $21::bigint[])
)
INSERT INTO event_outbox (subject, sequence)
SELECT subject, sequence FROM unnest($9::text[], $10::int[]) WITH ORDINALITY AS x (subject, sequence, n)
ORDER BY n;

-- take: pieces from shelves that still have as many, locked in one order by everybody
WITH shelf AS (
    SELECT s.sku, s.warehouse, w.quantity
    FROM stock s JOIN unnest($1::text[], $2::text[], $3::bigint[]) AS w (sku, warehouse, quantity)
        USING (sku, warehouse)
    WHERE s.on_hand - s.reserved >= w.quantity
    ORDER BY s.sku, s.warehouse FOR NO KEY UPDATE OF s
)
UPDATE stock SET reserved = stock.reserved + shelf.quantity FROM shelf
WHERE stock.sku = shelf.sku AND stock.warehouse = shelf.warehouse;
