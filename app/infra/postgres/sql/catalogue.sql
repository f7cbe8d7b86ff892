-- prices: some products with their prices
SELECT sku, name, amount, currency FROM products WHERE sku = ANY ($1::text[]);

-- products: the same with the pieces that nobody has reserved
SELECT p.sku, p.name, p.amount, p.currency,
    (SELECT coalesce(sum(s.on_hand - s.reserved), 0) FROM stock s WHERE s.sku = p.sku)::bigint AS available
FROM products p WHERE p.sku = ANY ($1::text[]);

-- products_after: one page of products, by SKU
SELECT sku, name, amount, currency FROM products WHERE sku > $1 ORDER BY sku LIMIT $2;

-- add_product: a product that nobody has seen yet, or nothing where it is there
INSERT INTO products (sku, name, amount, currency) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING RETURNING true;

-- lock_product: one product, locked until the transaction ends, and the database's clock
SELECT sku, name, amount, currency, version, last_hash, updated_at, clock_timestamp() AS now
FROM products WHERE sku = $1 FOR NO KEY UPDATE;

-- change_product: its name and price
UPDATE products SET name = $2, amount = $3, currency = $4, updated_at = $5 WHERE sku = $1;

-- link_product: how far its chain of events has come
UPDATE products SET version = $2, last_hash = $3, updated_at = $4 WHERE sku = $1;

-- stock: the shelves of some SKUs
SELECT p.sku, s.warehouse, s.on_hand, s.reserved
FROM products p LEFT JOIN stock s USING (sku)
WHERE p.sku = ANY ($1::text[]) ORDER BY p.sku, s.warehouse;

-- stock_after: the shelves of one page of SKUs
SELECT p.sku, s.warehouse, s.on_hand, s.reserved
FROM (SELECT sku FROM products WHERE sku > $1 ORDER BY sku LIMIT $2) p LEFT JOIN stock s USING (sku)
ORDER BY p.sku, s.warehouse;

-- lock_shelf: one SKU in one warehouse, locked until the transaction ends
SELECT warehouse, on_hand, reserved FROM stock WHERE sku = $1 AND warehouse = $2 FOR NO KEY UPDATE;

-- put_on_shelf: what is there now; a new warehouse gets a new shelf
INSERT INTO stock (sku, warehouse, on_hand) VALUES ($1, $2, $3)
ON CONFLICT (sku, warehouse) DO UPDATE SET on_hand = excluded.on_hand;
