-- Consumer groups that share their work out, set aside what they cannot handle, and count by the minute.

-- Who reads for a group, and until when that is believed. A process that says nothing for a moment is dead.
CREATE TABLE consumer_members (
    consumer_group text NOT NULL,
    member         text NOT NULL,
    expires_at     timestamptz NOT NULL,
    PRIMARY KEY (consumer_group, member)
) WITH (fillfactor = 50);

-- Which member has which shard of a group. The token grows with every change of hands; whoever writes an effect
-- shows it, so an owner that was thought dead and comes back writes nothing.
CREATE TABLE shard_leases (
    consumer_group text NOT NULL,
    shard          integer NOT NULL,
    owner          text,
    token          bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (consumer_group, shard)
);

-- A subject that is held waits behind its dead letter: its mark stands still.
ALTER TABLE marks ADD COLUMN is_held boolean NOT NULL DEFAULT false;

-- Events that a group could not handle. `retrying`: tried again at next_at; `open`: waits for somebody, or, of
-- kind unknown, for a process that knows its type; `discarding`: is to be left out; the others are history.
CREATE TABLE dead_letters (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer_group text NOT NULL,
    subject        text NOT NULL,
    sequence       integer NOT NULL,
    type           text NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('failed', 'unknown')),
    state          text NOT NULL CHECK (state IN ('retrying', 'open', 'discarding', 'handled', 'discarded')),
    error          text NOT NULL,
    stack          text NOT NULL,
    attempts       integer NOT NULL DEFAULT 1,
    first_at       timestamptz NOT NULL DEFAULT now(),
    last_at        timestamptz NOT NULL DEFAULT now(),
    next_at        timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX dead_letters_hold_their_subject ON dead_letters (consumer_group, subject)
    WHERE state IN ('retrying', 'open', 'discarding');
CREATE INDEX dead_letters_due ON dead_letters (consumer_group, next_at) WHERE state IN ('retrying', 'discarding');
CREATE INDEX dead_letters_open ON dead_letters (consumer_group, type) WHERE state = 'open';

-- What happened in each minute. measure: orders (key: status), revenue and refunds (key: currency; minor units),
-- rejections (key: reason), price_changes (key: empty).
CREATE TABLE analytics_minutes (
    minute  timestamptz NOT NULL,
    measure text NOT NULL,
    key     text NOT NULL,
    value   bigint NOT NULL,
    PRIMARY KEY (minute, measure, key)
) WITH (fillfactor = 50);
