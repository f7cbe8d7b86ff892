-- Webhooks: where customers want events sent, what was sent there, and who is left alone for a while.

CREATE TABLE webhook_endpoints (
    id              text PRIMARY KEY,
    url             text NOT NULL,
    description     text NOT NULL,
    event_types     text[] NOT NULL,                -- empty: all of them
    customer_id     text,                           -- set: only events of this customer's orders
    is_enabled      boolean NOT NULL DEFAULT true,
    disabled_reason text,
    secret          text NOT NULL,                  -- empty once it is deleted
    previous_secret text,
    previous_until  timestamptz,                    -- until then both secrets sign
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    deleted_at      timestamptz                     -- its deliveries may still be under way
);
CREATE INDEX webhook_endpoints_of_customers ON webhook_endpoints (customer_id)
    WHERE customer_id IS NOT NULL AND deleted_at IS NULL;

-- One event to one endpoint, under an id that is made of both.
CREATE TABLE webhook_deliveries (
    id           text PRIMARY KEY,
    number       bigint GENERATED ALWAYS AS IDENTITY,   -- the order of the log
    endpoint_id  text NOT NULL REFERENCES webhook_endpoints,
    subject      text NOT NULL,
    sequence     integer NOT NULL,
    type         text NOT NULL,
    happened_at  timestamptz NOT NULL,              -- the event's time, by which its partition is found
    state        text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
    round        integer NOT NULL DEFAULT 1,        -- grows when somebody has it sent again
    attempts     integer NOT NULL DEFAULT 0,
    last_status  integer,
    last_error   text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_at      timestamptz,
    next_at      timestamptz DEFAULT now(),
    delivered_at timestamptz
) WITH (fillfactor = 70);
CREATE INDEX webhook_deliveries_of_endpoints ON webhook_deliveries (endpoint_id, number DESC);
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (next_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries USING brin (created_at);

-- An endpoint that fails again and again is left alone until open_until, then tried by one delivery at a time
-- (probe_until). Deliveries that wait come back one after another: next_slot is the last place in their line.
CREATE TABLE webhook_breakers (
    endpoint_id text PRIMARY KEY REFERENCES webhook_endpoints,
    failures    integer NOT NULL DEFAULT 0,
    openings    integer NOT NULL DEFAULT 0,
    open_until  timestamptz,
    probe_until timestamptz,
    next_slot   timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);
