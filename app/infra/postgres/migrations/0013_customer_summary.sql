-- What each customer ordered and paid, by currency: a projection. Money is in minor units.
CREATE TABLE customer_summary (
    customer_id    text NOT NULL,
    currency       text NOT NULL,
    accepted       bigint NOT NULL DEFAULT 0,
    completed      bigint NOT NULL DEFAULT 0,
    rejected       bigint NOT NULL DEFAULT 0,
    cancelled      bigint NOT NULL DEFAULT 0,
    items          bigint NOT NULL DEFAULT 0,       -- pieces in accepted orders
    captured       bigint NOT NULL DEFAULT 0,
    refunded       bigint NOT NULL DEFAULT 0,
    first_order_at timestamptz,
    last_order_at  timestamptz,
    PRIMARY KEY (customer_id, currency)
) WITH (fillfactor = 80);

-- The group has been at work: what it has seen is counted here, exactly up to its marks, which stand still
-- meanwhile; the rest it counts itself. A consumer of an older release would go on without counting: stop them
-- before, or have the projection rebuilt afterwards.
LOCK TABLE marks IN SHARE MODE;
INSERT INTO customer_summary
SELECT o.customer_id, o.currency,
    count(*) FILTER (WHERE e.type = 'order.accepted.v1'),
    count(*) FILTER (WHERE e.type = 'order.completed.v1'),
    count(*) FILTER (WHERE e.type = 'order.rejected.v1'),
    count(*) FILTER (WHERE e.type = 'order.cancelled.v1'),
    coalesce(sum((SELECT sum((line->>'quantity')::bigint) FROM json_array_elements(e.data->'lines') line))
        FILTER (WHERE e.type = 'order.accepted.v1'), 0),
    coalesce(sum((e.data->'amount'->>'amount')::bigint) FILTER (WHERE e.type = 'payment.captured.v1'), 0),
    coalesce(sum((e.data->'amount'->>'amount')::bigint) FILTER (WHERE e.type = 'payment.refunded.v1'), 0),
    min(e.time) FILTER (WHERE e.type = 'order.accepted.v1'),
    max(e.time) FILTER (WHERE e.type = 'order.accepted.v1')
FROM marks m
JOIN events e ON e.subject = m.subject AND e.sequence <= m.sequence
JOIN orders o ON o.id = m.subject
WHERE m.consumer_group = 'projections' AND e.type IN ('order.accepted.v1', 'order.completed.v1',
    'order.rejected.v1', 'order.cancelled.v1', 'payment.captured.v1', 'payment.refunded.v1')
GROUP BY o.customer_id, o.currency;
