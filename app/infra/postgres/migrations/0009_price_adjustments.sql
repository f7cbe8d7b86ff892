-- What orders come to under corrected price lists: one row for each order and each replay that adjusted it. No
-- money is moved by it; what gives the difference back will read it here.

CREATE TABLE price_adjustments (
    order_id     text NOT NULL REFERENCES orders,
    replay_id    text NOT NULL,
    id           text NOT NULL UNIQUE,
    price_list   text NOT NULL,
    sequence     integer NOT NULL,                  -- of its event, `order.repriced.v1`
    currency     text NOT NULL,
    total_before bigint NOT NULL CHECK (total_before >= 0),
    total_after  bigint NOT NULL CHECK (total_after >= 0),
    difference   bigint GENERATED ALWAYS AS (total_after - total_before) STORED,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (order_id, replay_id)               -- each order once by each replay, whatever dies
);
CREATE INDEX price_adjustments_by_replay ON price_adjustments (replay_id, order_id);

CREATE FUNCTION refuse_change_of_adjustments() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'price adjustments are never changed or deleted';
END $$;
CREATE TRIGGER price_adjustments_are_for_ever BEFORE UPDATE OR DELETE ON price_adjustments
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_adjustments();

-- The same as the order itself knows it, with the lines that differ: what it decides by, and what readers see.
ALTER TABLE orders ADD COLUMN price_adjustments jsonb NOT NULL DEFAULT '[]';
