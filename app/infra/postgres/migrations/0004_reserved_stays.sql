-- What is reserved stays: a shelf from which pieces are promised, and an order that holds pieces, cannot be
-- deleted by anybody. Unlike a foreign key of each reservation this costs nothing until somebody tries.

CREATE FUNCTION refuse_while_reserved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE foreign_key_violation USING MESSAGE = format('pieces are reserved: a row of %I stays', TG_TABLE_NAME);
END $$;
CREATE TRIGGER stock_reserved_stays BEFORE DELETE ON stock
    FOR EACH ROW WHEN (OLD.reserved > 0) EXECUTE FUNCTION refuse_while_reserved();
CREATE TRIGGER orders_reserved_stay BEFORE DELETE ON orders
    FOR EACH ROW WHEN (OLD.stock = 'reserved') EXECUTE FUNCTION refuse_while_reserved();
