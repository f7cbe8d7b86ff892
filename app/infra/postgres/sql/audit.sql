-- all: the events after one, in order of the chains
SELECT subject, sequence, type, time, correlation_id, traceparent, data, previous_hash, hash FROM events
WHERE (subject, sequence) > ($1, $2) ORDER BY subject, sequence LIMIT $3;

-- some: the same of some subjects
SELECT subject, sequence, type, time, correlation_id, traceparent, data, previous_hash, hash FROM events
WHERE (subject, sequence) > ($1, $2) AND subject = ANY ($4::text[]) ORDER BY subject, sequence LIMIT $3;

-- open_subjects: who had an event in a span of time; kept by the server until the connection ends
DECLARE audited CURSOR WITH HOLD FOR
SELECT DISTINCT subject FROM events WHERE time >= $1 AND time < $2 ORDER BY subject;

-- next_subjects: the next of them
FETCH 500 FROM audited;

-- close_subjects: no more of them
CLOSE audited;

-- heads: how far subjects have come, as their own rows say
SELECT id AS subject, version, last_hash FROM orders WHERE id = ANY ($1::text[])
UNION ALL SELECT sku, version, last_hash FROM products WHERE sku = ANY ($1::text[]);

-- orders: orders after one, and whether there are events of them
SELECT o.id AS subject,
    EXISTS (SELECT FROM events e WHERE e.subject = o.id AND e.time >= o.created_at - interval '1 day') AS is_told
FROM (SELECT id, created_at FROM orders WHERE id > $1 AND created_at >= $2 AND created_at < $3 ORDER BY id LIMIT $4) o
ORDER BY o.id;

-- products: the same of products that had an event
SELECT p.sku AS subject, EXISTS (SELECT FROM events e WHERE e.subject = p.sku) AS is_told
FROM (
    SELECT sku FROM products WHERE sku > $1 AND created_at >= $2 AND created_at < $3 AND version > 0
    ORDER BY sku LIMIT $4
) p ORDER BY p.sku;

-- estimate: about how many events there are, as far as PostgreSQL has counted
SELECT greatest(0, sum(c.reltuples))::bigint FROM pg_class c
WHERE c.relkind = 'r' AND c.oid IN (SELECT relid FROM pg_partition_tree('events') UNION SELECT 'events'::regclass);
