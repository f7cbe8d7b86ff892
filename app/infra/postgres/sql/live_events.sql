-- order: whose an order is, how far it is, and up to where its events are in an archive only
SELECT customer_id, status, version,
    CASE WHEN EXISTS (SELECT FROM event_archives WHERE dropped_at IS NOT NULL) THEN coalesce(
        (SELECT min(sequence) - 1 FROM events WHERE subject = $1 AND time >= $2), version)
    ELSE 0 END AS archived_through
FROM orders WHERE id = $1;

-- after: what happened to each of some subjects after a sequence of its own, in order, at most so much of each; $4 is
-- a time before all of it, which spares partitions
SELECT e.subject, e.sequence, e.type, e.time, e.correlation_id, e.traceparent, e.data
FROM unnest($1::text[], $2::integer[]) AS wanted (subject, after)
CROSS JOIN LATERAL (
    SELECT * FROM events WHERE subject = wanted.subject AND sequence > wanted.after AND time >= $4
    ORDER BY sequence LIMIT $3
) e
ORDER BY e.subject, e.sequence;

-- now: the database's clock
SELECT clock_timestamp();

-- time_of: when an event happened
SELECT time FROM events WHERE subject = $1 AND sequence = $2 AND time >= $3;

-- span: one page of what happened in a span of time, behind the last event of the page before
SELECT subject, sequence, type, time, correlation_id, traceparent, data FROM events
WHERE time >= $2 AND time < $1 AND (time, subject, sequence) > ($2::timestamptz, $3::text, $4::integer)
ORDER BY time, subject, sequence LIMIT $5;
