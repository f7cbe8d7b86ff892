-- add: what some customers ordered and paid; rows are taken in one order by everybody
INSERT INTO customer_summary (customer_id, currency, accepted, completed, rejected, cancelled, items, captured,
    refunded, first_order_at, last_order_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
    $8::bigint[], $9::bigint[], $10::timestamptz[], $11::timestamptz[])
    AS s (customer_id, currency, accepted, completed, rejected, cancelled, items, captured, refunded,
        first_order_at, last_order_at)
ORDER BY customer_id, currency
ON CONFLICT (customer_id, currency) DO UPDATE SET
    accepted = customer_summary.accepted + excluded.accepted,
    completed = customer_summary.completed + excluded.completed,
    rejected = customer_summary.rejected + excluded.rejected,
    cancelled = customer_summary.cancelled + excluded.cancelled,
    items = customer_summary.items + excluded.items,
    captured = customer_summary.captured + excluded.captured,
    refunded = customer_summary.refunded + excluded.refunded,
    first_order_at = least(customer_summary.first_order_at, excluded.first_order_at),
    last_order_at = greatest(customer_summary.last_order_at, excluded.last_order_at);

-- summary: one customer, by currency
SELECT currency, accepted, completed, rejected, cancelled, items, captured, refunded, first_order_at, last_order_at
FROM customer_summary WHERE customer_id = $1 ORDER BY currency;
