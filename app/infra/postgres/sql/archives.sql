-- sealed: the first and the last day that is sealed
SELECT min(day) AS first, max(day) AS last FROM seals;

-- seals: the seals of some days
SELECT day, events, first_event, last_event, root, previous_seal, sealed_at, hash FROM seals
WHERE day >= $1 AND day < $2 ORDER BY day;

-- events: what happened in a span of time, in the order of the archive
SELECT subject, sequence, type, time, correlation_id, traceparent, data, previous_hash, hash FROM events
WHERE time >= $1 AND time < $2 ORDER BY subject COLLATE "C", sequence;

-- record: a month lies in an archive and was verified there
INSERT INTO event_archives (month, url, events, size, manifest_hash, dropped_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (month, url) DO UPDATE SET events = excluded.events, size = excluded.size,
    manifest_hash = excluded.manifest_hash, archived_at = now()
WHERE event_archives.dropped_at IS NULL;

-- all: every month in every archive
SELECT month, url, events, size, manifest_hash, archived_at, dropped_at FROM event_archives
ORDER BY month, archived_at;

-- dropped: the months that lie in archives only, each in the archive that was written last
SELECT DISTINCT ON (month) month, url, events, size, manifest_hash, archived_at, dropped_at FROM event_archives
WHERE dropped_at IS NOT NULL ORDER BY month, archived_at DESC;

-- dropped_until: the end of the last month whose events are no longer here; null: all are
SELECT (max(month) + interval '1 month')::timestamp AT TIME ZONE 'UTC' FROM event_archives
WHERE dropped_at IS NOT NULL;

-- archived_through: for each of some subjects the last sequence that is in the archive only; nothing where all of it is
-- here
SELECT s.subject, coalesce(e.first - 1, o.version, p.version, 0) AS sequence
FROM unnest($1::text[]) AS s (subject)
LEFT JOIN LATERAL (SELECT min(sequence) AS first FROM events WHERE subject = s.subject AND time >= $2) e ON true
LEFT JOIN orders o ON o.id = s.subject
LEFT JOIN products p ON p.sku = s.subject
WHERE EXISTS (SELECT FROM event_archives WHERE dropped_at IS NOT NULL)
    AND coalesce(e.first - 1, o.version, p.version, 0) > 0;

-- orders_of: how many orders were made in a span of time
SELECT count(*) FROM orders WHERE created_at >= $1 AND created_at < $2;

-- here_again: a month that was dropped was put back
UPDATE event_archives SET dropped_at = NULL WHERE month = $1;
