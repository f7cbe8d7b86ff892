-- hold: the subject waits from now on; nothing where it does already
INSERT INTO marks (consumer_group, subject, sequence, is_held) VALUES ($1, $2, 0, true)
ON CONFLICT (consumer_group, subject) DO UPDATE SET is_held = true WHERE NOT marks.is_held RETURNING sequence;

-- add: the event behind the mark could not be handled
INSERT INTO dead_letters (consumer_group, subject, sequence, type, kind, state, error, stack, next_at)
SELECT $1, $2, $3, coalesce((SELECT type FROM events WHERE subject = $2 AND sequence = $3), ''), $4, $5, $6, $7,
    now() + make_interval(secs => $8)
ON CONFLICT DO NOTHING;

-- due: letters to be tried (or left out) now, claimed for some seconds. Of those that nobody knew the type of,
-- those whose type is known here. (What is to wait for more than a minute was put off before the clock was set back.)
UPDATE dead_letters SET next_at = now() + make_interval(secs => $3),
    state = CASE state WHEN 'open' THEN 'retrying' ELSE state END,
    attempts = CASE state WHEN 'open' THEN 0 ELSE attempts END
WHERE id IN (
    SELECT id FROM dead_letters
    WHERE consumer_group = $1 AND (
        (state = 'retrying' AND (next_at <= now() OR next_at > now() + interval '1 minute') AND (kind = 'failed' OR type = ANY ($2::text[])))
        OR (state = 'discarding' AND (next_at <= now() OR next_at > now() + interval '1 minute'))
        OR (state = 'open' AND kind = 'unknown' AND type = ANY ($2::text[])))
    ORDER BY next_at, id LIMIT $4 FOR UPDATE SKIP LOCKED)
RETURNING id, consumer_group, subject, sequence, type, kind, state, error, stack, attempts, first_at, last_at;

-- still_there: those of some letters that nobody has dealt with since; locked
SELECT id, state FROM dead_letters WHERE id = ANY ($1::bigint[]) AND state IN ('retrying', 'discarding')
ORDER BY id FOR NO KEY UPDATE;

-- close: letters whose events were handled, or left out
UPDATE dead_letters SET state = CASE state WHEN 'discarding' THEN 'discarded' ELSE 'handled' END, last_at = now()
WHERE id = ANY ($1::bigint[]);

-- let_go: their subjects go on
UPDATE marks SET is_held = false WHERE consumer_group = $1 AND subject = ANY ($2::text[]);

-- failed: one more attempt was in vain
UPDATE dead_letters SET attempts = attempts + 1, error = $2, stack = $3, kind = $4, state = $5, last_at = now(),
    next_at = now() + make_interval(secs => $6)
WHERE id = $1 AND state = 'retrying';

-- counts: open letters of some groups, so many at most of each
SELECT g AS consumer_group, (
    SELECT count(*) FROM (SELECT FROM dead_letters WHERE consumer_group = g AND state = 'open' LIMIT $2) o
)
FROM unnest($1::text[]) AS g;

-- forget: letters that were dealt with long ago
DELETE FROM dead_letters WHERE state IN ('handled', 'discarded') AND last_at < now() - interval '30 days';

-- page: some letters behind an id, in some states, that are chosen; in the order in which they came
SELECT id, consumer_group, subject, sequence, type, kind, state, error, stack, attempts, first_at, last_at
FROM dead_letters
WHERE id > $1 AND state = ANY ($3::text[])
    AND ($4::bigint[] IS NULL OR id = ANY ($4)) AND ($5::text IS NULL OR consumer_group = $5)
    AND ($6::text IS NULL OR type = $6) AND ($7::text IS NULL OR starts_with(subject, $7))
    AND ($8::text IS NULL OR kind = $8) AND ($9::timestamptz IS NULL OR first_at >= $9)
    AND ($10::timestamptz IS NULL OR first_at < $10)
ORDER BY id LIMIT $2;

-- one: a letter
SELECT id, consumer_group, subject, sequence, type, kind, state, error, stack, attempts, first_at, last_at
FROM dead_letters WHERE id = $1;

-- decide: some letters behind an id that wait and are chosen are to be tried again, or left out; locked in one
-- order by everybody
UPDATE dead_letters SET state = $3, attempts = 0, next_at = now()
WHERE id IN (
    SELECT id FROM dead_letters
    WHERE id > $1 AND state IN ('retrying', 'open')
        AND ($4::bigint[] IS NULL OR id = ANY ($4)) AND ($5::text IS NULL OR consumer_group = $5)
        AND ($6::text IS NULL OR type = $6) AND ($7::text IS NULL OR starts_with(subject, $7))
        AND ($8::text IS NULL OR kind = $8) AND ($9::timestamptz IS NULL OR first_at >= $9)
        AND ($10::timestamptz IS NULL OR first_at < $10)
    ORDER BY id LIMIT $2 FOR NO KEY UPDATE)
RETURNING id;
