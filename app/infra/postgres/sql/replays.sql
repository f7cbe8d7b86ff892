-- insert: somebody asks for a replay
INSERT INTO replays (id, handler, selection, parameters, rate_per_s, is_applied)
VALUES ($1, $2, $3::text::jsonb, $4::text::jsonb, $5, $6) RETURNING *;

-- one: a replay
SELECT * FROM replays WHERE id = $1;

-- locked: a replay that nobody else changes until this transaction ends
SELECT * FROM replays WHERE id = $1 FOR NO KEY UPDATE;

-- page: replays, newest first, behind an id
SELECT * FROM replays
WHERE id < $1 AND ($2::text IS NULL OR handler = $2) AND ($3::text IS NULL OR state = $3)
ORDER BY id DESC LIMIT $4;

-- changes: what a replay would change, or has changed, behind a number
SELECT number, key, before, after, difference FROM replay_changes
WHERE replay_id = $1 AND number > $2 ORDER BY number LIMIT $3;

-- add_changes: more rows that differ, numbered on
INSERT INTO replay_changes (replay_id, number, key, before, after, difference)
SELECT $1, c.number, c.key::jsonb, c.before::jsonb, c.after::jsonb, c.difference::jsonb
FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[])
    AS c (number, key, before, after, difference);

-- sums: what the differences come to, column by column, by some part of the rows' keys
SELECT coalesce(array_to_string(ARRAY(SELECT c.key ->> k FROM unnest($2::text[]) AS k), ' '), '') AS of,
    d.key AS name, sum((d.value #>> '{}')::numeric)::text AS value
FROM replay_changes c, jsonb_each(c.difference) d
WHERE c.replay_id = $1 AND jsonb_typeof(d.value) = 'number'
GROUP BY 1, 2 ORDER BY 1, 2;

-- save: how far a replay is
UPDATE replays SET state = $2, cursor = $3, total = $4, done = $5, changes = $6, checked = $7, applied = $8,
    summary = $9::text::jsonb, error = $10, updated_at = clock_timestamp(),
    started_at = coalesce(started_at, clock_timestamp()),
    finished_at = CASE WHEN $11 THEN clock_timestamp() END
WHERE id = $1;

-- apply: somebody wants what was shown
UPDATE replays SET state = 'checking', is_applied = true, updated_at = clock_timestamp(), finished_at = NULL
WHERE id = $1 RETURNING *;

-- cancel: somebody does not want it any more
UPDATE replays SET state = 'cancelled', updated_at = clock_timestamp(), finished_at = clock_timestamp()
WHERE id = $1 RETURNING *;

-- forgotten: replays whose shadow is older than it is kept
SELECT id, handler FROM replays
WHERE state = 'shown' AND finished_at < now() - make_interval(secs => $1) AND NOT summary ? 'expired'
ORDER BY id LIMIT 10 FOR NO KEY UPDATE SKIP LOCKED;

-- expire: nothing can be applied from this one any more
UPDATE replays SET summary = summary || '{"expired": true}' WHERE id = $1;
