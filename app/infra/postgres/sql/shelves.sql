-- available: pieces of every SKU that no order has or waits for
WITH promised AS (
    SELECT line.sku, sum(line.quantity) AS pieces
    FROM orders, jsonb_to_recordset(lines) AS line (sku text, quantity bigint)
    WHERE status = 'accepted' AND stock = 'none' GROUP BY line.sku
), shelved AS (
    SELECT sku, sum(on_hand - reserved) AS pieces FROM stock GROUP BY sku
)
SELECT p.sku, (coalesce(shelved.pieces, 0) - coalesce(promised.pieces, 0))::bigint AS available
FROM products p LEFT JOIN shelved USING (sku) LEFT JOIN promised USING (sku);

-- available_of: the same of some SKUs
WITH promised AS (
    SELECT line.sku, sum(line.quantity) AS pieces
    FROM orders, jsonb_to_recordset(lines) AS line (sku text, quantity bigint)
    WHERE status = 'accepted' AND stock = 'none' AND line.sku = ANY ($1::text[]) GROUP BY line.sku
), shelved AS (
    SELECT sku, sum(on_hand - reserved) AS pieces FROM stock WHERE sku = ANY ($1::text[]) GROUP BY sku
)
SELECT p.sku, (coalesce(shelved.pieces, 0) - coalesce(promised.pieces, 0))::bigint AS available
FROM products p LEFT JOIN shelved USING (sku) LEFT JOIN promised USING (sku)
WHERE p.sku = ANY ($1::text[]);
