-- add: what happened in some minutes; rows are taken in one order by everybody
INSERT INTO analytics_minutes (minute, measure, key, value)
SELECT * FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::bigint[]) AS a (minute, measure, key, value)
ORDER BY minute, measure, key
ON CONFLICT (minute, measure, key) DO UPDATE SET value = analytics_minutes.value + excluded.value;

-- page: some minutes behind one, up to another, with all their rows
SELECT a.minute, a.measure, a.key, a.value
FROM (
    SELECT DISTINCT minute FROM analytics_minutes
    WHERE minute >= $1 AND minute > $2 AND minute < $3 ORDER BY minute LIMIT $4
) m JOIN analytics_minutes a USING (minute)
ORDER BY a.minute, a.measure, a.key;
