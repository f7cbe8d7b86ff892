-- count: how many events a partition holds
SELECT count(*) FROM {partition};

-- behind: the groups that have not come to the end of each subject in a partition, with one of these
SELECT g.name AS consumer_group, count(*) AS subjects, min(s.subject) AS example
FROM (SELECT subject, max(sequence) AS last FROM {partition} GROUP BY subject) s
CROSS JOIN unnest($1::text[]) AS g (name)
LEFT JOIN marks m ON m.consumer_group = g.name AND m.subject = s.subject
WHERE s.last > coalesce(m.sequence, 0)
GROUP BY g.name ORDER BY g.name;

-- groups: every group that has ever read. (Relays have leases, too, and no marks: what they have not published is
-- asked of the outbox.)
SELECT DISTINCT consumer_group FROM shard_leases WHERE consumer_group NOT LIKE 'relay/%';

-- letters: how many of its events are dead letters that wait
SELECT count(*) FROM dead_letters d JOIN {partition} e USING (subject, sequence)
WHERE d.state IN ('retrying', 'open', 'discarding');

-- unpublished: how many of its events no stream has had
SELECT count(*) FROM event_outbox o JOIN {partition} e USING (subject, sequence);

-- deliveries: how many webhooks are still to be sent of its events
SELECT count(*) FROM webhook_deliveries d JOIN {partition} e USING (subject, sequence)
WHERE d.happened_at = e.time AND d.state = 'pending';

-- replays: replays that are under way
SELECT id FROM replays WHERE state NOT IN ('applied', 'refused', 'cancelled', 'failed', 'shown') ORDER BY id;

-- caught: how many events in the net are older than a moment
SELECT count(*) FROM events_default WHERE time < $1;

-- hold: nobody writes to a partition from now on
LOCK TABLE {partition} IN SHARE MODE;

-- drop: a partition with its events
DROP TABLE {partition};

-- dropped: its months are in archives only
UPDATE event_archives SET dropped_at = now() WHERE month >= $1 AND month < $2 AND dropped_at IS NULL;
