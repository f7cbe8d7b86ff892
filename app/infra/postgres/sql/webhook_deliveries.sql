-- add: a delivery of each event to every endpoint that wants it, to wait for its turn; the ids of those that were not
-- there.
-- Where there is no endpoint of the one or the other sort, its half is not even begun.
WITH given AS (
    SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::timestamptz[])
        AS g (subject, sequence, type, time)
), owned AS MATERIALIZED (
    SELECT g.*, o.customer_id FROM given g JOIN orders o ON o.id = g.subject
    WHERE (SELECT EXISTS (SELECT FROM webhook_endpoints WHERE customer_id IS NOT NULL AND deleted_at IS NULL))
), wanted AS (
    SELECT w.id AS endpoint_id, g.* FROM given g JOIN webhook_endpoints w ON w.customer_id IS NULL
        AND w.is_enabled AND g.time >= w.created_at - interval '1 minute'
        AND (w.event_types = '{}' OR g.type = ANY (w.event_types))
    UNION ALL
    SELECT w.id, g.subject, g.sequence, g.type, g.time FROM owned g
    JOIN webhook_endpoints w ON w.customer_id = g.customer_id AND w.deleted_at IS NULL
        AND w.is_enabled AND g.time >= w.created_at - interval '1 minute'
        AND (w.event_types = '{}' OR g.type = ANY (w.event_types))
)
INSERT INTO webhook_deliveries (id, endpoint_id, subject, sequence, type, happened_at, waits)
SELECT 'msg_' || encode(substr(sha256(convert_to(
        endpoint_id || '/' || subject || ':' || sequence, 'UTF8')), 1, 16), 'hex'),
    endpoint_id, subject, sequence, type, time, true
FROM wanted ORDER BY subject, sequence, endpoint_id
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- begin: a delivery with its endpoint, its event, and whether the endpoint is left alone. (Here as below: what lies
-- further ahead than it can be was written before the clock was set back, and is taken as past.)
SELECT d.state, d.round, d.last_error, d.endpoint_id, d.subject, d.sequence, d.type AS wanted, d.happened_at,
    w.url, w.secret, w.is_enabled, w.deleted_at IS NOT NULL AS is_deleted,
    CASE WHEN w.previous_until > now() THEN w.previous_secret END AS previous_secret,
    b.open_until, b.open_until > now() AND b.open_until <= now() + make_interval(secs => $2) AS is_open,
    e.type, e.time, e.correlation_id, e.traceparent, e.data
FROM webhook_deliveries d JOIN webhook_endpoints w ON w.id = d.endpoint_id
LEFT JOIN webhook_breakers b ON b.endpoint_id = d.endpoint_id
LEFT JOIN events e ON e.subject = d.subject AND e.sequence = d.sequence AND e.time = d.happened_at
WHERE d.id = $1;

-- probe: become the one delivery that tries an endpoint again, for some seconds
UPDATE webhook_breakers SET probe_until = now() + make_interval(secs => $2)
WHERE endpoint_id = $1 AND (open_until <= now() OR open_until > now() + make_interval(secs => $3))
    AND (probe_until IS NULL OR probe_until < now() OR probe_until > now() + make_interval(secs => $4))
RETURNING true;

-- wait: take the next place in the line of an endpoint that has too much on its way; when that is, from now
WITH slot AS (
    INSERT INTO webhook_breakers AS b (endpoint_id, next_slot) VALUES ($2, now() + make_interval(secs => $3))
    ON CONFLICT (endpoint_id) DO UPDATE
    SET next_slot = greatest(CASE WHEN b.next_slot < now() + interval '1 minute' THEN b.next_slot END,
        now() + make_interval(secs => $3)) + make_interval(secs => $4)
    RETURNING next_slot
)
UPDATE webhook_deliveries d SET next_at = slot.next_slot FROM slot WHERE d.id = $1 AND d.state = 'pending'
RETURNING greatest(extract(epoch FROM d.next_at - now()), 0)::float8 AS again_in_s;

-- hand_back: the endpoint is left alone, so a delivery waits for its turn. (Its old round, should it ask again, has been
-- overtaken.) A later round that does not say when its schedule began was begun by hand, by an earlier release, when it
-- was due; a first one was begun when it was created.
UPDATE webhook_deliveries SET waits = true, round = round + 1, claimed_until = '-infinity',
    failures = coalesce(failures, CASE WHEN round = 1 THEN attempts ELSE 0 END),
    since = coalesce(since, CASE WHEN round = 1 THEN created_at ELSE next_at END)
WHERE id = $1 AND round = $2 AND state = 'pending';

-- delivered: and the endpoint is well; whether others wait for it
WITH well AS (
    UPDATE webhook_breakers SET failures = 0, openings = 0, open_until = NULL, probe_until = NULL
    WHERE endpoint_id = $2 AND (failures > 0 OR open_until IS NOT NULL)
    RETURNING endpoint_id
), done AS (
    UPDATE webhook_deliveries SET state = 'delivered', waits = false, attempts = attempts + 1, last_status = $4,
        last_error = NULL, last_at = now(), next_at = NULL, delivered_at = now()
    WHERE id = $1 AND round = $3
)
SELECT EXISTS (SELECT FROM well) AS was_ill, EXISTS (
    SELECT FROM webhook_deliveries d
    WHERE d.endpoint_id = $2 AND d.waits AND d.state = 'pending' AND d.next_at <= now() AND d.id <> $1
) AS others_wait;

-- failed: one more attempt in vain; the endpoint is left alone when there were several in a row. The delivery sleeps
-- with its workflow until the next attempt ($6: there is one, in $7 seconds), or waits here where that is far off ($11) or
-- the endpoint is left alone: as a new round, so that its workflow, should it ask again, has been overtaken.
WITH ill AS (
    INSERT INTO webhook_breakers AS b (endpoint_id, failures) VALUES ($2, 1)
    ON CONFLICT (endpoint_id) DO UPDATE SET failures = b.failures + 1,
        openings = b.openings + CASE WHEN b.failures + 1 >= $8
                AND (b.open_until > now() AND b.open_until <= now() + make_interval(secs => $12)) IS NOT TRUE
            THEN 1 ELSE 0 END,
        open_until = CASE WHEN b.failures + 1 >= $8
                AND (b.open_until > now() AND b.open_until <= now() + make_interval(secs => $12)) IS NOT TRUE
            THEN now() + make_interval(secs => least($9 * 2.0 ^ least(b.openings, 20), $10))
            ELSE b.open_until END,
        probe_until = NULL
    RETURNING failures, openings,
        coalesce(open_until > now() AND open_until <= now() + make_interval(secs => $12), false) AS is_open
), tried AS (
    UPDATE webhook_deliveries d SET attempts = attempts + 1,
        failures = coalesce(d.failures, CASE WHEN round = 1 THEN attempts ELSE 0 END) + 1,
        since = coalesce(since, CASE WHEN round = 1 THEN created_at ELSE next_at END),
        last_status = $4, last_error = $5, last_at = now(),
        state = CASE WHEN $6 THEN 'pending' ELSE 'failed' END,
        next_at = CASE WHEN $6 THEN now() + make_interval(secs => $7) END,
        waits = $6 AND (ill.is_open OR $7 > $11),
        round = round + CASE WHEN $6 AND (ill.is_open OR $7 > $11) THEN 1 ELSE 0 END,
        claimed_until = CASE WHEN $6 AND (ill.is_open OR $7 > $11) THEN '-infinity' ELSE claimed_until END
    FROM ill WHERE d.id = $1 AND d.round = $3
    RETURNING d.waits
)
SELECT failures, openings, is_open, coalesce((SELECT waits FROM tried), false) AS waits, NOT is_open AND EXISTS (
    SELECT FROM webhook_deliveries d
    WHERE d.endpoint_id = $2 AND d.waits AND d.state = 'pending' AND d.next_at <= now() AND d.id <> $1
) AS others_wait FROM ill;

-- give_up: it is not tried any more
UPDATE webhook_deliveries SET state = 'failed', waits = false, last_error = $3, next_at = NULL
WHERE id = $1 AND round = $2 AND state = 'pending';

-- page: an endpoint's deliveries, newest first. Who waits for an endpoint that is left alone is not tried before that
-- ends; then come those first that are due longest.
SELECT d.id, number, endpoint_id, subject, sequence, type, state, attempts, last_status, last_error, created_at, last_at,
    next_at AS due_at, CASE WHEN waits THEN greatest(next_at, (SELECT open_until FROM webhook_breakers WHERE endpoint_id = $1))
        ELSE next_at END AS next_at, delivered_at
FROM webhook_deliveries d
WHERE endpoint_id = $1 AND number < $2 AND ($3::text IS NULL OR state = $3) ORDER BY number DESC LIMIT $4;

-- again: a delivery is to be sent once more, from the beginning of the schedule; it does not stand in line
UPDATE webhook_deliveries SET state = 'pending', waits = false, round = round + 1, next_at = now(), failures = 0,
    since = now(), claimed_until = '-infinity'
WHERE id = $1 AND endpoint_id = $2
RETURNING *, next_at AS due_at;

-- is_enabled: whether anything is sent to an endpoint
SELECT is_enabled FROM webhook_endpoints WHERE id = $1 AND deleted_at IS NULL;

-- archived_month: the month of a delivery's event where it is in an archive only, like 2026-08
SELECT to_char(d.happened_at AT TIME ZONE 'UTC', 'YYYY-MM') FROM webhook_deliveries d
WHERE d.id = $1 AND d.type <> $2 AND NOT EXISTS (
    SELECT FROM events e WHERE e.subject = d.subject AND e.sequence = d.sequence AND e.time = d.happened_at);

-- test: a delivery of nothing but a greeting; two of one second have sequences of their own
INSERT INTO webhook_deliveries (id, endpoint_id, subject, sequence, type, happened_at)
SELECT $1, $2, $2, greatest(extract(epoch FROM now())::int, 1 + max(sequence)), $3, now()
FROM webhook_deliveries WHERE endpoint_id = $2 AND subject = $2
RETURNING *, next_at AS due_at;

-- revive: deliveries whose time is long over though they do not wait, so nobody carries them: they wait again. None
-- while jobs wait for long: then it is those that carry them. (The sum keeps the planner to the index of what is begun.)
WITH lost AS MATERIALIZED (
    SELECT id FROM webhook_deliveries
    WHERE NOT waits AND state = 'pending' AND next_at + make_interval(secs => $1) < now()
        AND claimed_until < now() - make_interval(secs => $1)
        AND (SELECT NOT EXISTS (SELECT FROM workflow_jobs
            WHERE kind = 'webhook' AND created_at < now() - make_interval(secs => $1 / 2)))
    LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE webhook_deliveries d SET waits = true, round = round + 1, claimed_until = '-infinity',
    failures = coalesce(failures, CASE WHEN round = 1 THEN attempts ELSE 0 END),
    since = coalesce(since, CASE WHEN round = 1 THEN created_at ELSE next_at END)
FROM lost WHERE d.id = lost.id;

-- far_off: deliveries that are due later than any can be: now
UPDATE webhook_deliveries SET next_at = now(), claimed_until = least(claimed_until, now()) WHERE id IN (
    SELECT id FROM webhook_deliveries
    WHERE state = 'pending' AND next_at > now() + make_interval(secs => $1) LIMIT $2 FOR UPDATE SKIP LOCKED);

-- forget: what came to its end long ago, a bounded number at a time
DELETE FROM webhook_deliveries WHERE id IN (
    SELECT id FROM webhook_deliveries
    WHERE created_at < now() - make_interval(days => $1) AND state <> 'pending' LIMIT $2);
