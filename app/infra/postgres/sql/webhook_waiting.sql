-- one_by_one: whether nobody else counts places at this moment: two who count at once would give some away twice
SELECT pg_try_advisory_xact_lock(hashtextextended('webhook_waiting', 0));

-- claim: deliveries whose workflows are to be begun, for a while ours. Nobody's whose endpoint is left alone; one at a
-- time to see whether it is back; else as many as the endpoint ($3) and all together ($4) have places free. A place is
-- kept until the delivery ends or sleeps, but not longer than $5: then its workflow is taken to be lost. An endpoint's
-- places go to who is due longest; endpoints take turns. While new orders wait to be started there is little room.
-- (Those that have waited for a minute while no newer ones do are refused by Temporal, and hold nobody up. What is
-- claimed for more than a minute was claimed before the clock was set back; so was an endpoint left alone that is to be
-- for longer than $7, or is tried for longer than $8.)
WITH places AS (
    SELECT l.endpoint_id, CASE WHEN b.open_until IS NULL THEN $3::int ELSE 1 END AS places, (
        SELECT count(*) FROM (
            SELECT FROM webhook_deliveries u WHERE u.endpoint_id = l.endpoint_id AND NOT u.waits
                AND u.state = 'pending' AND u.next_at <= now() AND u.claimed_until > now() - make_interval(secs => $5)
            LIMIT $3::int) taken
    )::int AS taken
    FROM webhook_lines l JOIN webhook_endpoints w ON w.id = l.endpoint_id AND w.is_enabled
    LEFT JOIN webhook_breakers b ON b.endpoint_id = l.endpoint_id
    WHERE b.open_until IS NULL OR (
        (b.open_until <= now() OR b.open_until > now() + make_interval(secs => $7))
        AND (b.probe_until IS NULL OR b.probe_until < now() OR b.probe_until > now() + make_interval(secs => $8)))
), due AS MATERIALIZED (
    SELECT d.id, d.next_at, d.number, d.claimed_until BETWEEN now() AND now() + interval '1 minute' AS is_claimed,
        p.taken + row_number() OVER (PARTITION BY p.endpoint_id ORDER BY d.next_at, d.number) AS turn
    FROM places p CROSS JOIN LATERAL (
        SELECT * FROM webhook_deliveries q
        WHERE q.endpoint_id = p.endpoint_id AND q.waits AND q.state = 'pending' AND q.next_at <= now()
        ORDER BY q.next_at, q.number LIMIT p.places - least(p.taken, p.places)
    ) d
), next AS MATERIALIZED (
    SELECT id FROM due WHERE NOT is_claimed ORDER BY turn, next_at, number
    LIMIT greatest(0, least(
        CASE WHEN EXISTS (SELECT FROM workflow_outbox
                WHERE created_at BETWEEN now() - interval '1 minute' AND now() - interval '0.5 seconds')
            THEN least($1::int, $6::int) ELSE $1::int END,
        $4::int - (SELECT count(*) FROM due WHERE is_claimed) - (SELECT count(*) FROM (
            SELECT FROM webhook_deliveries u WHERE NOT u.waits AND u.state = 'pending' AND u.next_at <= now()
                AND u.claimed_until > now() - make_interval(secs => $5)
            LIMIT $4::int) taken)
    ))
)
UPDATE webhook_deliveries d SET claimed_until = now() + make_interval(secs => $2)
FROM next WHERE d.id = next.id AND d.waits AND d.state = 'pending'
RETURNING d.id, round, coalesce(failures, CASE WHEN round = 1 THEN attempts ELSE 0 END) AS failures, number, next_at,
    extract(epoch FROM coalesce(since, CASE WHEN round = 1 THEN created_at ELSE next_at END))::float8 AS since;

-- done: Temporal carries these rounds; one that has ended, or waits again, is left as it is
UPDATE webhook_deliveries d SET waits = false
FROM unnest($1::text[], $2::int[]) AS g (id, round)
WHERE d.id = g.id AND d.round = g.round AND d.waits;

-- give_back: claimed ones whose workflow could not be begun, to be tried again after a pause
UPDATE webhook_deliveries d SET claimed_until = now() + make_interval(secs => $3)
FROM unnest($1::text[], $2::int[]) AS g (id, round)
WHERE d.id = g.id AND d.round = g.round AND d.waits;

-- give_up_unwanted: those whose turn has come and whose endpoint is switched off, a bounded number at a time
WITH unwanted AS MATERIALIZED (
    SELECT d.id, w.deleted_at IS NOT NULL AS is_deleted
    FROM webhook_lines l JOIN webhook_endpoints w ON w.id = l.endpoint_id AND NOT w.is_enabled
    CROSS JOIN LATERAL (
        SELECT id FROM webhook_deliveries q
        WHERE q.endpoint_id = w.id AND q.waits AND q.state = 'pending' AND q.next_at <= now()
        ORDER BY q.next_at, q.number LIMIT $1 FOR UPDATE SKIP LOCKED
    ) d
    LIMIT $1
)
UPDATE webhook_deliveries d SET state = 'failed', waits = false, next_at = NULL,
    last_error = CASE WHEN u.is_deleted THEN $2 ELSE $3 END
FROM unwanted u WHERE d.id = u.id;

-- give_up_late: those of a schedule that began too long ago, whose turn has come at an endpoint that is left alone; a
-- bounded number at a time
WITH late AS MATERIALIZED (
    SELECT id FROM webhook_deliveries q
    WHERE waits AND state = 'pending' AND coalesce(since, created_at) < now() - make_interval(secs => $1)
        AND (since IS NOT NULL OR round = 1 OR next_at < now() - make_interval(secs => $1))
        AND claimed_until < now() AND next_at <= now() AND EXISTS (
            SELECT FROM webhook_breakers b WHERE b.endpoint_id = q.endpoint_id AND b.open_until IS NOT NULL)
    ORDER BY coalesce(since, created_at) LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE webhook_deliveries d SET state = 'failed', waits = false, next_at = NULL, last_error = coalesce(last_error, $3)
FROM late WHERE d.id = late.id;

-- count: how many wait, of so many at most
SELECT count(*) FROM (SELECT FROM webhook_deliveries WHERE waits AND state = 'pending' LIMIT $1) w;

-- late: for how long the first delivery is due whose endpoint could have it, in seconds; null where there is none
SELECT max(extract(epoch FROM now() - (
    SELECT q.next_at FROM webhook_deliveries q
    WHERE q.endpoint_id = w.id AND q.waits AND q.state = 'pending' ORDER BY q.next_at, q.number LIMIT 1)))::float8
FROM webhook_lines l JOIN webhook_endpoints w ON w.id = l.endpoint_id AND w.is_enabled
WHERE NOT EXISTS (SELECT FROM webhook_breakers b WHERE b.endpoint_id = w.id AND b.open_until IS NOT NULL);
