-- due: the day that is to be sealed next, with the hash of the seal before; none when it is not over for so long
SELECT next.day, s.hash AS previous_seal, now() AS at
FROM (
    SELECT coalesce(
        (SELECT max(day) + 1 FROM seals),
        (SELECT (min(time) AT TIME ZONE 'UTC')::date FROM events
         WHERE time < date_trunc('day', now() - make_interval(secs => $1), 'UTC'))
    ) AS day
) next LEFT JOIN seals s ON s.day = next.day - 1
WHERE (next.day + 1)::timestamp AT TIME ZONE 'UTC' <= now() - make_interval(secs => $1);

-- events_of_day: what happened in a span of time, in the order in which it is sealed
SELECT subject, sequence, hash FROM events WHERE time >= $1 AND time < $2
ORDER BY subject COLLATE "C", sequence;

-- add: a day is sealed
INSERT INTO seals (day, events, first_event, last_event, root, previous_seal, sealed_at, hash)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- add_leaf: what a part of the day held, in short
INSERT INTO seal_leaves (day, number, subject, sequence, hashes) VALUES ($1, $2, $3, $4, $5);

-- between: the seals of some days, after one of them
SELECT day, events, first_event, last_event, root, previous_seal, sealed_at, hash FROM seals
WHERE day >= $1 AND day <= $2 ORDER BY day LIMIT $3;

-- hash: the hash of one seal
SELECT hash FROM seals WHERE day = $1;

-- leaf: one leaf of a day
SELECT subject, sequence, hashes FROM seal_leaves WHERE day = $1 AND number = $2;

-- events_before: what happened before a moment
SELECT subject, sequence FROM events WHERE time < $1 ORDER BY subject COLLATE "C", sequence;
