-- add: workflows to be started, or signalled
INSERT INTO workflow_jobs (kind, workflow_id, argument, signal)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]);

-- claim: rows of known kinds that nobody works on, for a while ours: kind by kind as they are named, the oldest first.
-- While new orders wait to be started there is little room for anything else. (Those that have waited for a minute while
-- no newer ones do are refused by Temporal, and hold nobody up. What is claimed for more than a minute was claimed before
-- the clock was set back.)
UPDATE workflow_jobs SET claimed_until = now() + make_interval(secs => $2)
WHERE id IN (
    SELECT id FROM workflow_jobs
    WHERE claimed_until NOT BETWEEN now() AND now() + interval '1 minute' AND kind = ANY ($3::text[])
    ORDER BY array_position($3::text[], kind), id
    LIMIT CASE WHEN EXISTS (
        SELECT FROM workflow_outbox
        WHERE created_at BETWEEN now() - interval '1 minute' AND now() - interval '0.5 seconds'
    ) THEN least($1, 8) ELSE $1 END
    FOR UPDATE SKIP LOCKED
)
RETURNING id, kind, workflow_id, argument, signal;

-- done: jobs that Temporal has taken
DELETE FROM workflow_jobs WHERE id = ANY ($1::bigint[]);

-- give_back: claimed rows that did not get through, to be tried again after a pause
UPDATE workflow_jobs SET claimed_until = now() + make_interval(secs => $2) WHERE id = ANY ($1::bigint[]);
