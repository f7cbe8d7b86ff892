-- lead: become the one relay of this database, or not; held until the connection ends
SELECT pg_try_advisory_lock($1);

-- waiting: the oldest events that no stream has, in order, with the age of the first
SELECT o.position, e.subject, e.sequence, e.type, e.time, e.correlation_id, e.traceparent, e.data,
    extract(epoch FROM clock_timestamp() - o.created_at)::float8 AS age_s
FROM event_outbox o JOIN events e USING (subject, sequence)
ORDER BY o.position LIMIT $1;

-- published: the streams have these
DELETE FROM event_outbox WHERE position = ANY ($1::bigint[]);
