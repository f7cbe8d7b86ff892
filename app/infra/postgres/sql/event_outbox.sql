-- waiting: the oldest events that no stream has, in order, of some shards or of all: the shard is computed as everybody
-- does it, by CRC-32 of the subject. What did not happen in a span of time comes without a type; the span spares
-- partitions
SELECT o.position, o.subject, o.sequence, e.type, e.time, e.correlation_id, e.traceparent, e.data
FROM (
    SELECT * FROM event_outbox
    WHERE $5::int[] IS NULL OR crc32(convert_to(subject, 'UTF8')) % $4 = ANY ($5::int[])
    ORDER BY position LIMIT $1
) o
LEFT JOIN events e ON e.subject = o.subject AND e.sequence = o.sequence AND e.time >= $2 AND e.time < $3
ORDER BY o.position;

-- waiting_long: some of them, whenever they happened
SELECT o.position, e.subject, e.sequence, e.type, e.time, e.correlation_id, e.traceparent, e.data
FROM event_outbox o JOIN events e USING (subject, sequence)
WHERE o.position = ANY ($1::bigint[]);

-- published: the streams have these
DELETE FROM event_outbox WHERE position = ANY ($1::bigint[]);
