-- Months of events that lie in an archive, verified, and since when they lie only there. The audit, replays and
-- whoever reads an old order's history rest on it.

CREATE TABLE event_archives (
    month         date NOT NULL CHECK (extract(day FROM month) = 1),
    url           text NOT NULL,                    -- without credentials
    events        bigint NOT NULL,
    size          bigint NOT NULL,                  -- bytes, compressed
    manifest_hash bytea NOT NULL,                   -- SHA-256 of the manifest, which has those of the events
    archived_at   timestamptz NOT NULL DEFAULT now(),
    dropped_at    timestamptz,                      -- its events are no longer in the database
    PRIMARY KEY (month, url)
);
CREATE INDEX event_archives_dropped ON event_archives (month) WHERE dropped_at IS NOT NULL;
CREATE TRIGGER event_archives_are_for_ever BEFORE DELETE ON event_archives
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_seals();
CREATE TRIGGER event_archives_are_not_truncated BEFORE TRUNCATE ON event_archives
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_seals();
