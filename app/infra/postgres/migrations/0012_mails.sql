-- Mails to customers: one row for each order and each thing that its customer is told of. The address is the
-- order's own and is read when the mail is sent.
CREATE TABLE mails (
    order_id   text NOT NULL,
    kind       text NOT NULL,
    sequence   integer NOT NULL,                    -- of the event: mails of one order go in this order
    state      text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'failed')),
    attempts   integer NOT NULL DEFAULT 0,
    next_at    timestamptz NOT NULL DEFAULT now(),  -- not tried before; while it is tried: when the claim runs out
    last_error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz,
    PRIMARY KEY (order_id, kind)
) WITH (fillfactor = 70);
CREATE INDEX mails_due ON mails (next_at) WHERE state = 'waiting';
CREATE INDEX mails_ended ON mails (ended_at) WHERE state <> 'waiting';

-- When this database came to know of mail: whoever ordered before is not written to.
CREATE TABLE mail_start (since timestamptz NOT NULL);
INSERT INTO mail_start VALUES (now());
