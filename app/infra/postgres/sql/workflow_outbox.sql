-- claim: the oldest rows that nobody works on, for a while ours. (What is claimed for more than a minute was claimed
-- before the clock was set back.)
UPDATE workflow_outbox SET claimed_until = now() + make_interval(secs => $2)
FROM orders
WHERE workflow_outbox.order_id = orders.id AND workflow_outbox.id IN (
    SELECT id FROM workflow_outbox WHERE claimed_until NOT BETWEEN now() AND now() + interval '1 minute'
    ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
)
RETURNING workflow_outbox.id, order_id, kind, detail, orders.status, customer_id, orders.correlation_id,
    orders.traceparent;

-- done: calls that Temporal has answered
DELETE FROM workflow_outbox WHERE id = ANY ($1::bigint[]);

-- give_back: claimed rows whose call did not get through, to be tried again after a pause
UPDATE workflow_outbox SET claimed_until = now() + make_interval(secs => $2) WHERE id = ANY ($1::bigint[]);

-- check: open orders that have not moved for long and were not looked at lately
UPDATE orders SET checked_at = now() WHERE id IN (
    SELECT id FROM orders
    WHERE status NOT IN ('completed', 'rejected', 'cancelled')
        AND checked_at < now() - make_interval(secs => $1) AND updated_at < now() - make_interval(secs => $1)
        AND NOT EXISTS (SELECT 1 FROM workflow_outbox w WHERE w.order_id = orders.id)
    ORDER BY checked_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
RETURNING id AS order_id, status, customer_id, correlation_id, traceparent;
