-- ages: how long the oldest row of each outbox, and the oldest order of each status, is there, in seconds; null where
-- there is none. Each is the first row of an index. (A status is asked for as a span, in the index's own order: else the
-- planner may look for a status that no order has by reading all orders by id.)
SELECT 'outbox' AS of, o.name, extract(epoch FROM clock_timestamp() - o.created_at)::float8 AS age_s
FROM (
    SELECT 'events' AS name, (SELECT created_at FROM event_outbox ORDER BY position LIMIT 1) AS created_at
    UNION ALL SELECT 'workflows', (SELECT created_at FROM workflow_outbox ORDER BY id LIMIT 1)
    UNION ALL SELECT 'jobs', (SELECT created_at FROM workflow_jobs ORDER BY id LIMIT 1)
) o
UNION ALL
SELECT 'order', s.name, extract(epoch FROM clock_timestamp() - (
    SELECT created_at FROM orders WHERE status >= s.name AND status <= s.name ORDER BY status DESC, id LIMIT 1
))::float8
FROM unnest($1::text[]) AS s (name);

-- open_orders: how many are not final, by what they wait for, of so many at most; in the order of the index of these
SELECT waiting_on, count(*) FROM (
    SELECT waiting_on FROM orders WHERE status NOT IN ('completed', 'rejected', 'cancelled')
    ORDER BY checked_at LIMIT $1
) o GROUP BY waiting_on;
