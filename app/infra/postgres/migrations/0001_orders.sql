-- The whole first schema: catalogue, stock, orders, events, idempotency, outboxes, ledger, keys, projections.

CREATE TABLE products (
    sku        text PRIMARY KEY,
    name       text NOT NULL,
    amount     bigint NOT NULL CHECK (amount >= 0),
    currency   text NOT NULL,
    version    integer NOT NULL DEFAULT 0,          -- sequence of the SKU's last event
    last_hash  bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE stock (
    sku       text NOT NULL REFERENCES products,
    warehouse text NOT NULL,
    on_hand   bigint NOT NULL,
    reserved  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (sku, warehouse),
    CONSTRAINT stock_reserved_not_negative CHECK (reserved >= 0),
    CONSTRAINT stock_never_oversold CHECK (on_hand >= reserved)
) WITH (fillfactor = 50);

CREATE TABLE orders (
    id               text PRIMARY KEY,
    customer_id      text NOT NULL,
    status           text NOT NULL,
    currency         text NOT NULL,
    lines            jsonb NOT NULL,
    total            bigint NOT NULL CHECK (total >= 0),
    payment          jsonb NOT NULL,
    payment_method   text,
    stock            text NOT NULL,
    fulfilments      jsonb NOT NULL DEFAULT '[]',
    reason           jsonb,
    waiting_on       text,
    metadata         jsonb NOT NULL DEFAULT '{}',
    shipping_address jsonb,
    cancel_reason    text,
    correlation_id   text NOT NULL,
    traceparent      text,
    version          integer NOT NULL,
    last_hash        bytea NOT NULL,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    checked_at       timestamptz NOT NULL DEFAULT now()  -- when its workflow was last asked for
) WITH (fillfactor = 70);
CREATE INDEX orders_by_customer ON orders (customer_id, id DESC);
CREATE INDEX orders_by_status ON orders (status, id DESC);
CREATE INDEX orders_open ON orders (checked_at)
    WHERE status NOT IN ('completed', 'rejected', 'cancelled');
CREATE INDEX orders_by_update ON orders (updated_at);

CREATE TABLE reservations (
    order_id  text NOT NULL REFERENCES orders,
    sku       text NOT NULL,
    warehouse text NOT NULL,
    quantity  bigint NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (order_id, sku, warehouse),
    FOREIGN KEY (sku, warehouse) REFERENCES stock
);

-- Events are for ever: the log of record, and the audit log. Each row carries the hash of the one before it
-- for its subject.
CREATE TABLE events (
    subject        text NOT NULL,
    sequence       integer NOT NULL,
    type           text NOT NULL,
    time           timestamptz NOT NULL,
    correlation_id text NOT NULL,
    traceparent    text,
    data           json NOT NULL,                   -- json, not jsonb: the hash covers these very bytes
    previous_hash  bytea,
    hash           bytea NOT NULL,
    PRIMARY KEY (subject, sequence)
);
CREATE INDEX events_by_correlation ON events (correlation_id);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events are never changed or deleted';
END $$;
CREATE TRIGGER events_are_for_ever BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER events_are_not_truncated BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What is still to be published. A row is written with its event and deleted when the stream has it, so
-- nothing is skipped however transactions overlap; positions of one subject grow with its sequence, because
-- the subject's row is locked while they are taken.
CREATE TABLE event_outbox (
    position   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject    text NOT NULL,
    sequence   integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- What Temporal is still to be told: start an order's workflow, or wake it.
CREATE TABLE workflow_outbox (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id      text NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('start', 'cancel', 'delivered')),
    detail        text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    claimed_until timestamptz NOT NULL DEFAULT '-infinity'
);

CREATE TABLE idempotency (
    caller     text NOT NULL,
    route      text NOT NULL,
    key        text NOT NULL,
    body_hash  bytea NOT NULL,
    status     smallint NOT NULL,
    location   text,
    answer     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, route, key)
);
CREATE INDEX idempotency_by_age ON idempotency USING brin (created_at);

-- Every movement of money is one row with its debit and its credit, so the books cannot be unbalanced.
CREATE TABLE ledger_transfers (
    order_id   text NOT NULL REFERENCES orders,
    sequence   integer NOT NULL,
    number     smallint NOT NULL,
    debit      text NOT NULL,
    credit     text NOT NULL CHECK (credit <> debit),
    amount     bigint NOT NULL CHECK (amount > 0),
    currency   text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (order_id, sequence, number)
);
CREATE VIEW ledger_entries AS
    SELECT order_id, sequence, number, debit AS account, amount AS debit, 0::bigint AS credit, currency, created_at
    FROM ledger_transfers
    UNION ALL
    SELECT order_id, sequence, number, credit, 0::bigint, amount, currency, created_at
    FROM ledger_transfers;

CREATE TABLE api_keys (
    id          text PRIMARY KEY,
    name        text NOT NULL,
    hash        bytea NOT NULL UNIQUE,              -- SHA-256 of the key; the key itself is shown once
    scopes      text[] NOT NULL,
    customer_id text,                               -- set: sees and orders for this customer only
    created_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz
);

-- How far a consumer group has come with a subject; written in the transaction of the effect.
CREATE TABLE marks (
    consumer_group text NOT NULL,
    subject        text NOT NULL,
    sequence       integer NOT NULL,
    PRIMARY KEY (consumer_group, subject)
) WITH (fillfactor = 70);

CREATE TABLE daily_summary (
    day       date NOT NULL,
    currency  text NOT NULL,
    accepted  bigint NOT NULL DEFAULT 0,
    confirmed bigint NOT NULL DEFAULT 0,
    completed bigint NOT NULL DEFAULT 0,
    rejected  bigint NOT NULL DEFAULT 0,
    cancelled bigint NOT NULL DEFAULT 0,
    items     bigint NOT NULL DEFAULT 0,            -- pieces in accepted orders
    captured  bigint NOT NULL DEFAULT 0,            -- minor units
    refunded  bigint NOT NULL DEFAULT 0,            -- minor units
    PRIMARY KEY (day, currency)
);
