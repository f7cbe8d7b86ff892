-- Deliveries wait here, not in Temporal, until their endpoint can have them. (What was written before is carried by its
-- workflow, and comes to wait here when that finds its endpoint left alone.)
ALTER TABLE webhook_deliveries
    ADD COLUMN waits         boolean NOT NULL DEFAULT false,           -- no workflow carries it; one is begun in its turn
    ADD COLUMN claimed_until timestamptz NOT NULL DEFAULT '-infinity', -- somebody is beginning, or began, its workflow
    ADD COLUMN failures      integer,                                  -- attempts of this schedule; null: as attempts
    ADD COLUMN since         timestamptz;                              -- when this schedule began; null: at created_at

-- Who is due next, endpoint by endpoint; how many each of them has under way; who has waited for too long.
CREATE INDEX webhook_deliveries_waiting ON webhook_deliveries (endpoint_id, next_at, number)
    WHERE waits AND state = 'pending';
CREATE INDEX webhook_deliveries_begun ON webhook_deliveries (endpoint_id, next_at)
    WHERE NOT waits AND state = 'pending';
CREATE INDEX webhook_deliveries_waiting_since ON webhook_deliveries (coalesce(since, created_at))
    WHERE waits AND state = 'pending';
