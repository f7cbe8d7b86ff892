-- Every day that is over is sealed: one hash over all of its events, chained to the seal of the day before.

CREATE TABLE seals (
    day           date PRIMARY KEY,                 -- in UTC, by the events' own time
    events        bigint NOT NULL CHECK (events >= 0),
    first_event   text,                             -- ids, in order of subject and sequence; null on an empty day
    last_event    text,
    root          bytea NOT NULL,
    previous_seal bytea,                            -- the hash of the seal before; null: this is the first
    sealed_at     timestamptz NOT NULL,
    hash          bytea NOT NULL UNIQUE
);

-- What a sealed day held, in short: the first eight bytes of each event's hash, in order. Only for finding which
-- event of a day is not what was sealed; that it is not, the root says.
CREATE TABLE seal_leaves (
    day      date NOT NULL REFERENCES seals,
    number   integer NOT NULL,
    subject  text COLLATE "C" NOT NULL,             -- the first event of this leaf
    sequence integer NOT NULL,
    hashes   bytea STORAGE EXTERNAL NOT NULL,       -- hashes do not compress
    PRIMARY KEY (day, number)
);

CREATE FUNCTION refuse_change_of_seals() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% are never changed or deleted', TG_TABLE_NAME;
END $$;
CREATE TRIGGER seals_are_for_ever BEFORE UPDATE OR DELETE ON seals
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_seals();
CREATE TRIGGER seals_are_not_truncated BEFORE TRUNCATE ON seals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_seals();
CREATE TRIGGER seal_leaves_are_for_ever BEFORE UPDATE OR DELETE ON seal_leaves
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_seals();
CREATE TRIGGER seal_leaves_are_not_truncated BEFORE TRUNCATE ON seal_leaves
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_seals();
