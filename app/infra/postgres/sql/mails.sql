-- write: a mail for each of some events, of orders that name an address; none for what happened long ago, or before
-- this database knew of mail. An order is told of each thing once
INSERT INTO mails (order_id, kind, sequence)
SELECT o.id, e.kind, e.sequence
FROM unnest($1::text[], $2::text[], $3::int[], $4::timestamptz[]) AS e (order_id, kind, sequence, time)
JOIN orders o ON o.id = e.order_id
WHERE o.shipping_address ? 'email' AND e.time > now() - make_interval(secs => $5)
    AND e.time >= (SELECT since FROM mail_start)
ORDER BY o.id, e.sequence
ON CONFLICT DO NOTHING;

-- is_due: whether there is a mail to be sent now
SELECT EXISTS (
    SELECT FROM mails m
    WHERE state = 'waiting' AND next_at <= now() AND NOT EXISTS (
        SELECT FROM mails b WHERE b.order_id = m.order_id AND b.state = 'waiting' AND b.sequence < m.sequence));

-- claim: mails that are due, of each order the first that waits; ours for some seconds, with their orders
WITH due AS MATERIALIZED (
    SELECT order_id, kind FROM mails m
    WHERE state = 'waiting' AND next_at <= now() AND NOT EXISTS (
        SELECT FROM mails b WHERE b.order_id = m.order_id AND b.state = 'waiting' AND b.sequence < m.sequence)
    ORDER BY next_at, order_id LIMIT $1 FOR NO KEY UPDATE OF m SKIP LOCKED
)
UPDATE mails SET next_at = now() + make_interval(secs => $2), attempts = attempts + 1
FROM due JOIN orders o ON o.id = due.order_id
WHERE mails.order_id = due.order_id AND mails.kind = due.kind
RETURNING o.*, mails.kind, mails.attempts, mails.created_at AS written_at;

-- names: what some products are called
SELECT sku, name FROM products WHERE sku = ANY ($1::text[]);

-- sent: a mail that the server has taken
UPDATE mails SET state = 'sent', ended_at = now(), last_error = NULL
WHERE order_id = $1 AND kind = $2 AND state <> 'sent';

-- later: it did not go this time, and nobody else has tried since
UPDATE mails SET next_at = now() + make_interval(secs => $4), last_error = $5
WHERE order_id = $1 AND kind = $2 AND attempts = $3 AND state = 'waiting';

-- failed: it never will
UPDATE mails SET state = 'failed', ended_at = now(), last_error = $4
WHERE order_id = $1 AND kind = $2 AND attempts = $3 AND state = 'waiting';

-- give_back: claimed, and not tried
UPDATE mails SET next_at = now(), attempts = mails.attempts - 1
FROM unnest($1::text[], $2::text[], $3::int[]) AS g (order_id, kind, attempts)
WHERE mails.order_id = g.order_id AND mails.kind = g.kind AND mails.attempts = g.attempts AND state = 'waiting';

-- oldest: the age in seconds of the oldest mail that waits
SELECT extract(epoch FROM now() - min(created_at))::float8 AS age_s FROM mails WHERE state = 'waiting';

-- forget: mails that were sent or given up long ago, at most some
DELETE FROM mails WHERE (order_id, kind) IN (
    SELECT order_id, kind FROM mails WHERE state <> 'waiting' AND ended_at < now() - interval '90 days'
    ORDER BY ended_at LIMIT $1);

-- page: the newest mails
SELECT order_id, kind, state, attempts, next_at, last_error, created_at, ended_at FROM mails
WHERE ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR order_id = $2)
ORDER BY created_at DESC, order_id DESC, sequence DESC LIMIT $3;

-- retry: failed mails are to be sent after all: these, or every one
UPDATE mails SET state = 'waiting', attempts = 0, next_at = now(), ended_at = NULL
WHERE state = 'failed' AND ($1::text[] IS NULL OR order_id || '.' || kind = ANY ($1))
RETURNING order_id || '.' || kind AS id;
