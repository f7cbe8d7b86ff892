-- load: the orders of these ids that there are
SELECT * FROM orders WHERE id = ANY ($1);

-- load_locked: one order, locked until the transaction ends, and the database's clock
SELECT *, clock_timestamp() AS now FROM orders WHERE id = $1 FOR NO KEY UPDATE;

-- address: where an order's parcels go, as the carrier is to know it
SELECT shipping_address - 'email' FROM orders WHERE id = $1;

-- update: everything of an order that an event can change
UPDATE orders SET status = $2, payment = $3, stock = $4, fulfilments = $5, reason = $6, waiting_on = $7,
    version = $8, last_hash = $9, updated_at = $10
WHERE id = $1;

-- update_payment: what is remembered with the provider, without an event
UPDATE orders SET payment = $2 WHERE id = $1;

-- set_waiting: say what an order waits for, unless it has just moved
UPDATE orders SET waiting_on = $2
WHERE id = $1 AND status NOT IN ('completed', 'rejected', 'cancelled')
    AND updated_at < clock_timestamp() - interval '1 second'
RETURNING id;

-- insert_events: events with their place in the outbox, in order
WITH written AS (
    INSERT INTO events (subject, sequence, type, time, correlation_id, traceparent, data, previous_hash, hash)
    SELECT $1, e.sequence, e.type, $2, $3, $4, e.data::json, e.previous_hash, e.hash
    FROM unnest($5::int[], $6::text[], $7::text[], $8::bytea[], $9::bytea[])
        AS e (sequence, type, data, previous_hash, hash)
)
INSERT INTO event_outbox (subject, sequence)
SELECT $1, s FROM unnest($5::int[]) WITH ORDINALITY AS x (s, n) ORDER BY n;

-- insert_transfers: movements of money
INSERT INTO ledger_transfers (order_id, sequence, number, debit, credit, amount, currency, created_at)
SELECT $1, t.sequence, t.number, t.debit, t.credit, t.amount, $2, $3
FROM unnest($4::int[], $5::int[], $6::text[], $7::text[], $8::bigint[])
    AS t (sequence, number, debit, credit, amount);

-- lock_reserved_stock: the shelves that hold pieces for an order, locked in one order by everybody
SELECT 1 FROM stock JOIN reservations USING (sku, warehouse)
WHERE reservations.order_id = $1 ORDER BY stock.sku, stock.warehouse FOR NO KEY UPDATE OF stock;

-- release: free what is held for an order
WITH gone AS (DELETE FROM reservations WHERE order_id = $1 RETURNING sku, warehouse, quantity)
UPDATE stock SET reserved = stock.reserved - gone.quantity FROM gone
WHERE stock.sku = gone.sku AND stock.warehouse = gone.warehouse;

-- ship: what is held for an order leaves the warehouses
WITH gone AS (DELETE FROM reservations WHERE order_id = $1 RETURNING sku, warehouse, quantity)
UPDATE stock SET reserved = stock.reserved - gone.quantity, on_hand = stock.on_hand - gone.quantity FROM gone
WHERE stock.sku = gone.sku AND stock.warehouse = gone.warehouse;
