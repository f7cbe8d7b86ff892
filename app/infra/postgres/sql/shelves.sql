-- available: pieces of every SKU that no order has or waits for, as one row of two arrays
SELECT array_agg(sku), array_agg(pieces) FROM (
    SELECT sku, greatest(sum(n), 0)::bigint AS pieces FROM (
        SELECT sku, 0 AS n FROM products
        UNION ALL
        SELECT sku, on_hand - reserved FROM stock
        UNION ALL
        SELECT line.sku, -line.quantity
        FROM orders, jsonb_to_recordset(orders.lines) AS line (sku text, quantity bigint)
        WHERE orders.status = 'accepted' AND orders.stock = 'none'
    ) AS summands GROUP BY sku
) AS sums;

-- available_of: the same of some SKUs
SELECT array_agg(sku), array_agg(pieces) FROM (
    SELECT sku, greatest(sum(n), 0)::bigint AS pieces FROM (
        SELECT sku, 0 AS n FROM products WHERE sku = ANY ($1::text[])
        UNION ALL
        SELECT sku, on_hand - reserved FROM stock WHERE sku = ANY ($1::text[])
        UNION ALL
        SELECT line.sku, -line.quantity
        FROM orders, jsonb_to_recordset(orders.lines) AS line (sku text, quantity bigint)
        WHERE orders.status = 'accepted' AND orders.stock = 'none' AND line.sku = ANY ($1::text[])
    ) AS summands GROUP BY sku
) AS sums;
