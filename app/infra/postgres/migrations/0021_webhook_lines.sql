-- The endpoints that deliveries wait for: a step in the index (webhook_deliveries_waiting) for each of them, however many
-- deliveries wait.
CREATE VIEW webhook_lines AS
WITH RECURSIVE lines AS (
    (SELECT endpoint_id FROM webhook_deliveries WHERE waits AND state = 'pending' ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.endpoint_id FROM webhook_deliveries d
        WHERE d.waits AND d.state = 'pending' AND d.endpoint_id > l.endpoint_id ORDER BY d.endpoint_id LIMIT 1)
    FROM lines l WHERE l.endpoint_id IS NOT NULL
)
SELECT endpoint_id FROM lines WHERE endpoint_id IS NOT NULL;
