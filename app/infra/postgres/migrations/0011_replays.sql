-- Replays: what was asked for, how far it is, and every row that it would change or has changed.

CREATE TABLE replays (
    id          text PRIMARY KEY,
    handler     text NOT NULL,
    selection   jsonb NOT NULL DEFAULT '{}',        -- since, until, type, order_id: which events
    parameters  jsonb NOT NULL DEFAULT '{}',        -- what its handler wants to know
    rate_per_s  integer CHECK (rate_per_s > 0),     -- events; null: as fast as it goes
    is_applied  boolean NOT NULL DEFAULT false,     -- whether somebody asked for it
    state       text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'reading', 'comparing', 'shown',
                    'checking', 'applying', 'applied', 'refused', 'cancelled', 'failed')),
    cursor      text,                               -- how far the events are read; the reader's own business
    total       bigint NOT NULL DEFAULT 0,          -- events to be read, as counted at the beginning
    done        bigint NOT NULL DEFAULT 0,          -- events read
    changes     bigint NOT NULL DEFAULT 0,          -- rows that differ
    checked     bigint NOT NULL DEFAULT 0,          -- the number of the last change that was looked at again
    applied     bigint NOT NULL DEFAULT 0,          -- the number of the last change that was made
    summary     jsonb NOT NULL DEFAULT '{}',
    error       text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    started_at  timestamptz,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
) WITH (fillfactor = 50);
-- Two of one handler are never applied at a time: what one has checked, no other moves.
CREATE UNIQUE INDEX replays_are_applied_alone ON replays (handler) WHERE state IN ('checking', 'applying');

CREATE TABLE replay_changes (
    replay_id  text NOT NULL REFERENCES replays,
    number     bigint NOT NULL,                     -- from 1, without gaps, in the order of the rows
    key        jsonb NOT NULL,                      -- which row
    before     jsonb,                               -- as it is; null: it is not there
    after      jsonb,                               -- as it should be; null: it should not be there
    difference jsonb NOT NULL,                      -- column → after less before, or both, where it is no number
    PRIMARY KEY (replay_id, number)
);
