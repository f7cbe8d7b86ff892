-- add: workflows to be started, or signalled
INSERT INTO workflow_jobs (kind, workflow_id, argument, signal)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]);

-- claim: the oldest rows of known kinds that nobody works on, for a while ours. (What is claimed for more than a minute
-- was claimed before the clock was set back.)
UPDATE workflow_jobs SET claimed_until = now() + make_interval(secs => $2)
WHERE id IN (
    SELECT id FROM workflow_jobs
    WHERE claimed_until NOT BETWEEN now() AND now() + interval '1 minute' AND kind = ANY ($3::text[])
    ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
)
RETURNING id, kind, workflow_id, argument, signal;

-- done: jobs that Temporal has taken
DELETE FROM workflow_jobs WHERE id = ANY ($1::bigint[]);

-- give_back: claimed rows that did not get through, to be tried again after a pause
UPDATE workflow_jobs SET claimed_until = now() + make_interval(secs => $2) WHERE id = ANY ($1::bigint[]);
