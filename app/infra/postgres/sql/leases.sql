-- beat: this member lives and reads for these groups, for some seconds from now
INSERT INTO consumer_members (consumer_group, member, expires_at)
SELECT g, $2, clock_timestamp() + make_interval(secs => $3) FROM unnest($1::text[]) AS g ORDER BY g
ON CONFLICT (consumer_group, member) DO UPDATE SET expires_at = excluded.expires_at;

-- members: who lives in some groups, for how many seconds still. (Who seems to live for much longer than anybody
-- may died before the clock was set back.)
SELECT consumer_group, member, extract(epoch FROM expires_at - clock_timestamp())::float8 AS lives_s
FROM consumer_members WHERE consumer_group = ANY ($1::text[]) AND expires_at > clock_timestamp()
    AND expires_at < clock_timestamp() + interval '1 minute';

-- make: the shards of some groups, where there are none yet
INSERT INTO shard_leases (consumer_group, shard)
SELECT g, s FROM unnest($1::text[]) AS g, generate_series(0, $2::int - 1) AS s ORDER BY g, s
ON CONFLICT DO NOTHING;

-- leases: who has which shard
SELECT consumer_group, shard, owner, token FROM shard_leases
WHERE consumer_group = ANY ($1::text[]) AND shard < $2 ORDER BY consumer_group, shard;

-- take: shards of a group whose owner does not live any more, at most some; what is just being written is left
UPDATE shard_leases SET owner = $2, token = token + 1
WHERE consumer_group = $1 AND shard IN (
    SELECT shard FROM shard_leases l
    WHERE consumer_group = $1 AND shard < $3 AND NOT EXISTS (
        SELECT FROM consumer_members m WHERE m.consumer_group = $1 AND m.member = l.owner
            AND m.expires_at > clock_timestamp()
            AND m.expires_at < clock_timestamp() + interval '1 minute')
    ORDER BY shard LIMIT $4 FOR UPDATE SKIP LOCKED)
RETURNING shard, token;

-- give_up: some shards of this member are free
UPDATE shard_leases SET owner = NULL, token = token + 1
WHERE consumer_group = $1 AND owner = $2 AND shard = ANY ($3::int[]);

-- leave: all of them, of every group
UPDATE shard_leases SET owner = NULL, token = token + 1 WHERE owner = $1;

-- forget: this member, and those that died long ago
DELETE FROM consumer_members WHERE member = $1 OR expires_at < clock_timestamp() - interval '1 minute'
    OR expires_at > clock_timestamp() + interval '1 minute';

-- guard: how many of some leases are still held; nobody takes them over until the transaction ends, and a
-- process that stands still in the middle of it is given up
SELECT count(*), set_config('idle_in_transaction_session_timeout', $4, true)
FROM (
    SELECT FROM shard_leases l JOIN unnest($2::int[], $3::bigint[]) AS h (shard, token) USING (shard, token)
    WHERE l.consumer_group = $1 ORDER BY l.shard FOR SHARE OF l
) held;
