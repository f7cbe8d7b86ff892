-- note: what one order knows of its adjustments
UPDATE orders SET price_adjustments = $2 WHERE id = $1;

-- insert: one adjustment
INSERT INTO price_adjustments (order_id, replay_id, id, price_list, sequence, currency, total_before, total_after,
    created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);
