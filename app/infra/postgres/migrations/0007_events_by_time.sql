-- Whoever follows all events resumes by the time of the last one seen. Events are appended about in the order
-- of their times, so a few bytes for each run of pages find them, and writing an event costs no index entry.
CREATE INDEX events_by_time ON events USING brin (time) WITH (pages_per_range = 32, autosummarize = on);
