-- count: how many events will be read
SELECT count(*) FROM events
WHERE type = ANY ($1::text[]) AND time >= $2 AND time < $3 AND ($4::text IS NULL OR subject = $4);

-- window_end: the last of the next so many events, in the order in which they are read, and how many there are
SELECT w.subject, w.sequence, count(*) OVER () AS found FROM (
    SELECT subject, sequence FROM events
    WHERE (subject, sequence) > ($1, $2) AND time >= $3 AND time < $4 AND ($6::text IS NULL OR subject <= $6)
    ORDER BY subject, sequence LIMIT $5
) w ORDER BY w.subject DESC, w.sequence DESC LIMIT 1;

-- window: the events behind one place and up to another
SELECT subject, sequence, type, time, correlation_id, traceparent, data FROM events
WHERE (subject, sequence) > ($1, $2) AND (subject, sequence) <= ($5, $6) AND time >= $3 AND time < $4
    AND type = ANY ($7::text[])
ORDER BY subject, sequence;

-- of_one: the next events of one subject
SELECT subject, sequence, type, time, correlation_id, traceparent, data FROM events
WHERE subject = $1 AND sequence > $2 AND time >= $3 AND time < $4 AND type = ANY ($5::text[])
ORDER BY sequence LIMIT $6;
