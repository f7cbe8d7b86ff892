-- take_marks: how far the group has come with these subjects, locked in one order by everybody and made where there
-- are none. Whose next events are at hand, from `first` to `last`, is moved on at once. Subjects that are missing in
-- what is returned got their mark from somebody else in this moment: do it again
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($2::text[], $3::int[], $4::int[]) AS a (subject, first, last)
), locked AS MATERIALIZED (
    SELECT subject, sequence, is_held FROM marks
    WHERE consumer_group = $1 AND subject = ANY ($2) ORDER BY subject FOR NO KEY UPDATE
), made AS (
    INSERT INTO marks (consumer_group, subject, sequence)
    SELECT $1, subject, CASE first WHEN 1 THEN last ELSE 0 END FROM asked
    WHERE subject NOT IN (SELECT subject FROM locked) ORDER BY subject
    ON CONFLICT DO NOTHING RETURNING subject, sequence
), moved AS (
    UPDATE marks m SET sequence = a.last FROM locked l JOIN asked a USING (subject)
    WHERE m.consumer_group = $1 AND m.subject = l.subject AND l.sequence = a.first - 1 AND NOT l.is_held
    RETURNING m.subject
)
SELECT l.subject, l.sequence, l.is_held, m.subject IS NOT NULL AS is_moved
FROM locked l LEFT JOIN moved m USING (subject)
UNION ALL SELECT subject, 0, false, sequence > 0 FROM made;

-- set_marks: the group has come this far
UPDATE marks SET sequence = m.sequence
FROM unnest($2::text[], $3::int[]) AS m (subject, sequence)
WHERE marks.consumer_group = $1 AND marks.subject = m.subject;

-- events_between: the events of some subjects behind one sequence and up to another, in order; $4 is a time before
-- all of them, which spares partitions
SELECT e.subject, e.sequence, e.type, e.time, e.correlation_id, e.traceparent, e.data
FROM unnest($1::text[], $2::int[], $3::int[]) AS g (subject, behind, last)
JOIN events e ON e.subject = g.subject AND e.sequence > g.behind AND e.sequence <= g.last
WHERE e.time >= $4
ORDER BY e.subject, e.sequence;

-- last_events: how far the log of record goes for some subjects
SELECT s AS subject, (SELECT max(e.sequence) FROM events e WHERE e.subject = s AND e.time >= $2) AS sequence
FROM unnest($1::text[]) AS s;

-- orders: some orders as they are now
SELECT * FROM orders WHERE id = ANY ($1::text[]);

-- add_to_summary: what happened on some days; rows are taken in one order by everybody
INSERT INTO daily_summary (day, currency, accepted, confirmed, completed, rejected, cancelled, items, captured,
    refunded)
SELECT * FROM unnest($1::date[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
    $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[])
    AS s (day, currency, accepted, confirmed, completed, rejected, cancelled, items, captured, refunded)
ORDER BY day, currency
ON CONFLICT (day, currency) DO UPDATE SET
    accepted = daily_summary.accepted + excluded.accepted,
    confirmed = daily_summary.confirmed + excluded.confirmed,
    completed = daily_summary.completed + excluded.completed,
    rejected = daily_summary.rejected + excluded.rejected,
    cancelled = daily_summary.cancelled + excluded.cancelled,
    items = daily_summary.items + excluded.items,
    captured = daily_summary.captured + excluded.captured,
    refunded = daily_summary.refunded + excluded.refunded;

-- behind_by_id: the next orders by id, and which of them the group has not come to the end of, of those that have
-- not changed for some seconds
SELECT o.id, o.version,
    o.updated_at < now() - make_interval(secs => $3) AND o.version > coalesce(m.sequence, 0)
        AND m.is_held IS NOT TRUE AS is_behind
FROM (SELECT id, version, updated_at FROM orders WHERE id > $2 ORDER BY id LIMIT $4) o
LEFT JOIN marks m ON m.consumer_group = $1 AND m.subject = o.id
ORDER BY o.id;

-- span: the moment some seconds ago, and where the span of time ends that begins then, at most in that moment
SELECT quiet, least($1::timestamptz + make_interval(secs => $3), quiet) AS until
FROM (SELECT clock_timestamp() - make_interval(secs => $2) AS quiet) q;

-- behind_by_time: the next orders by their last change, up to some time, that the group has not come to the end of
SELECT o.id, o.version, o.updated_at
FROM orders o LEFT JOIN marks m ON m.consumer_group = $1 AND m.subject = o.id
WHERE o.updated_at >= $2 AND o.updated_at < $4 AND (o.updated_at, o.id) > ($2, $3)
    AND o.version > coalesce(m.sequence, 0) AND m.is_held IS NOT TRUE
ORDER BY o.updated_at, o.id LIMIT $5;

-- products_behind: the next SKUs that the group has not come to the end of and that have not changed just now
SELECT p.sku, p.version FROM products p LEFT JOIN marks m ON m.consumer_group = $1 AND m.subject = p.sku
WHERE p.sku > $2 AND p.version > coalesce(m.sequence, 0) AND m.is_held IS NOT TRUE
    AND p.updated_at < now() - make_interval(secs => $3) ORDER BY p.sku LIMIT $4;
