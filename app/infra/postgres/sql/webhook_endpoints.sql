-- add: an endpoint
INSERT INTO webhook_endpoints (id, url, description, event_types, customer_id, secret)
VALUES ($1, $2, $3, $4, $5, $6)
RETURNING *,
    (SELECT open_until FROM webhook_breakers WHERE endpoint_id = id) AS left_alone_until;

-- one_by_one: whoever adds one for this customer waits for who is adding one
SELECT pg_advisory_xact_lock(hashtextextended('webhook_endpoints/' || coalesce($1, ''), 0));

-- count: how many endpoints a customer has, or those that are nobody's
SELECT count(*) FROM webhook_endpoints WHERE customer_id IS NOT DISTINCT FROM $1 AND deleted_at IS NULL;

-- one: an endpoint, as one may see it who is bound to a customer, or to none
SELECT *, (SELECT open_until FROM webhook_breakers WHERE endpoint_id = id) AS left_alone_until
FROM webhook_endpoints
WHERE id = $1 AND deleted_at IS NULL AND ($2::text IS NULL OR customer_id = $2);

-- lock: the same, locked until the transaction ends
SELECT * FROM webhook_endpoints
WHERE id = $1 AND deleted_at IS NULL AND ($2::text IS NULL OR customer_id = $2) FOR NO KEY UPDATE;

-- page: endpoints in order of their ids, which is that of their making
SELECT *, (SELECT open_until FROM webhook_breakers WHERE endpoint_id = id) AS left_alone_until
FROM webhook_endpoints
WHERE id > $1 AND deleted_at IS NULL AND ($2::text IS NULL OR customer_id = $2) ORDER BY id LIMIT $3;

-- change: what may be changed; null leaves it as it is
UPDATE webhook_endpoints SET
    url = coalesce($2, url), description = coalesce($3, description),
    event_types = coalesce($4::text[], event_types), is_enabled = coalesce($5, is_enabled),
    disabled_reason = CASE WHEN $5 THEN NULL WHEN $5 = false AND is_enabled THEN 'by_hand'
        ELSE disabled_reason END,
    updated_at = now()
WHERE id = $1
RETURNING *,
    (SELECT open_until FROM webhook_breakers WHERE endpoint_id = id) AS left_alone_until;

-- rotate: a new secret; the old one signs beside it for a while
UPDATE webhook_endpoints SET previous_secret = secret,
    previous_until = now() + make_interval(secs => $3), secret = $2, updated_at = now()
WHERE id = $1
RETURNING *,
    (SELECT open_until FROM webhook_breakers WHERE endpoint_id = id) AS left_alone_until;

-- delete: nothing is sent to it any more; what its owner said of it is forgotten
UPDATE webhook_endpoints SET deleted_at = now(), is_enabled = false, url = '', description = '', secret = '',
    previous_secret = NULL, updated_at = now()
WHERE id = $1 AND deleted_at IS NULL AND ($2::text IS NULL OR customer_id = $2)
RETURNING id;

-- close_breaker: a fresh start for an endpoint that somebody has changed
UPDATE webhook_breakers SET failures = 0, openings = 0, open_until = NULL, probe_until = NULL
WHERE endpoint_id = $1;

-- disable: the receiver said that it is gone
UPDATE webhook_endpoints SET is_enabled = false, disabled_reason = 'gone', updated_at = now()
WHERE id = $1 AND is_enabled
RETURNING id;

-- forget_secrets: those whose time is over
UPDATE webhook_endpoints SET previous_secret = NULL, previous_until = NULL WHERE previous_until < now();

-- open_breakers: how many endpoints are left alone
SELECT count(*) FROM webhook_breakers b JOIN webhook_endpoints w ON w.id = b.endpoint_id
WHERE b.open_until IS NOT NULL AND w.is_enabled;
