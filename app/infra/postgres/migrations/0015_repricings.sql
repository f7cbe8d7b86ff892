-- What a replay of a price list knows beside the changes that it shows.
CREATE TABLE repricings (
    replay_id   text PRIMARY KEY REFERENCES replays,
    until       timestamptz NOT NULL,               -- orders accepted before this moment are looked at
    adjustments bigint NOT NULL                     -- that these orders had when they were first looked at
);

-- Orders that have a SKU of the list and cannot be adjusted, and why.
CREATE TABLE repricing_left_out (
    replay_id text NOT NULL REFERENCES replays,
    order_id  text NOT NULL,
    code      text NOT NULL,
    detail    text NOT NULL,
    PRIMARY KEY (replay_id, order_id)
);
