-- The table of events becomes partitions, one a month of `time` in UTC, so that a month that is archived can leave
-- the database as a whole, and in no other way. The table that there was is the first of them, as it is: nothing is
-- copied and no index is built; it is read twice, for the times in it.
--
-- Each partition has its own primary key (subject, sequence), the parent has none: PostgreSQL would want the time in
-- it, and (subject, sequence, time) guards less and costs more. What guards a sequence across months is what guards
-- it within one: it is taken under the lock of its order's or product's row (docs/decisions/0015).

DO $$
DECLARE
    oldest timestamptz;
    newest timestamptz;
    lower_month date;
    upper_month date;
    part text;
BEGIN
    LOCK TABLE events IN ACCESS EXCLUSIVE MODE;
    SELECT min(time), max(time) INTO oldest, newest FROM events;
    lower_month := date_trunc('month', least(oldest, now()) AT TIME ZONE 'UTC')::date;
    upper_month := date_trunc('month', greatest(newest, now()) AT TIME ZONE 'UTC')::date;
    -- `until`: it holds more than one month; a month of it cannot be dropped alone.
    part := 'events_' || CASE WHEN lower_month < upper_month THEN 'until_' ELSE '' END
        || to_char(upper_month, 'YYYY_MM');

    DROP TRIGGER events_are_for_ever ON events;
    ALTER INDEX events_by_time RENAME TO events_by_time_of_the_first;
    ALTER TABLE events RENAME TO events_first;
    CREATE TABLE events (LIKE events_first INCLUDING DEFAULTS) PARTITION BY RANGE (time);
    CREATE INDEX events_by_time ON events USING brin (time) WITH (pages_per_range = 32, autosummarize = on);
    CREATE TRIGGER events_are_for_ever BEFORE UPDATE OR DELETE ON events
        FOR EACH ROW EXECUTE FUNCTION refuse_change();
    CREATE TRIGGER events_are_not_truncated BEFORE TRUNCATE ON events
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

    EXECUTE format('ALTER TABLE events_first RENAME TO %I', part);
    EXECUTE format('ALTER TABLE %I RENAME CONSTRAINT events_pkey TO %I', part, part || '_pkey');
    EXECUTE format('ALTER INDEX events_by_time_of_the_first RENAME TO %I', part || '_time_idx');
    EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%L)', part,
        CASE WHEN lower_month < upper_month THEN 'MINVALUE' ELSE quote_literal(lower_month || ' 00:00:00+00') END,
        (upper_month + interval '1 month')::date || ' 00:00:00+00');
END $$;

-- The partitions with what they hold: from `begins` up to `ends`, without it. Both are null for the net.
CREATE VIEW event_partitions AS
SELECT c.relname::text AS name, c.oid,
    CASE WHEN bound[1] = 'MINVALUE' THEN '-infinity' ELSE trim(BOTH '''' FROM bound[1]) END::timestamptz AS begins,
    CASE WHEN bound[2] = 'MAXVALUE' THEN 'infinity' ELSE trim(BOTH '''' FROM bound[2]) END::timestamptz AS ends
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
LEFT JOIN LATERAL regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \((.*)\) TO \((.*)\)') AS bound ON true
WHERE i.inhparent = 'events'::regclass;

-- A table like the others that is no partition yet.
CREATE FUNCTION make_events_table(part text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING DEFAULTS)', part);
    EXECUTE format('ALTER TABLE %I ADD CONSTRAINT %I PRIMARY KEY (subject, sequence)', part, part || '_pkey');
    EXECUTE format('CREATE INDEX %I ON %I USING brin (time) WITH (pages_per_range = 32, autosummarize = on)',
        part || '_time_idx', part);
    EXECUTE format('CREATE TRIGGER events_are_not_truncated BEFORE TRUNCATE ON %I '
        'FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', part);
END $$;

-- The net: what no other partition holds. An insert never fails for want of a partition.
SELECT make_events_table('events_default');
ALTER TABLE events ATTACH PARTITION events_default DEFAULT;

-- Make the partitions that are missing: of this month and some after it, and of what lies in the net, which is moved
-- where it belongs. Months more than ten years from now stay in the net: somebody's clock is wrong. Their names.
CREATE FUNCTION make_event_partitions(months_ahead integer) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    this_month date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
    caught date[];
    wanted date;
    lower_bound text;
    upper_bound text;
    part text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(x'6d6f6e746873'::bigint) THEN
        RETURN;                                     -- somebody else does it
    END IF;
    caught := ARRAY(SELECT DISTINCT date_trunc('month', time AT TIME ZONE 'UTC')::date FROM events_default
        WHERE time >= now() - interval '10 years' AND time < now() + interval '10 years');
    IF caught <> '{}' THEN
        -- Nobody may delete an event, we neither: the whole table is replaced.
        ALTER TABLE events DETACH PARTITION events_default;
        ALTER TABLE events_default RENAME TO events_caught;
        ALTER TABLE events_caught RENAME CONSTRAINT events_default_pkey TO events_caught_pkey;
        ALTER INDEX events_default_time_idx RENAME TO events_caught_time_idx;
        PERFORM make_events_table('events_default');
        ALTER TABLE events ATTACH PARTITION events_default DEFAULT;
    END IF;
    FOR wanted IN
        SELECT (this_month + make_interval(months => n))::date FROM generate_series(0, months_ahead) AS n
        UNION SELECT unnest(caught) ORDER BY 1
    LOOP
        lower_bound := wanted || ' 00:00:00+00';
        upper_bound := (wanted + interval '1 month')::date || ' 00:00:00+00';
        CONTINUE WHEN EXISTS (SELECT FROM event_partitions p
            WHERE p.begins < upper_bound::timestamptz AND p.ends > lower_bound::timestamptz);
        part := 'events_' || to_char(wanted, 'YYYY_MM');
        PERFORM make_events_table(part);
        EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            part, lower_bound, upper_bound);
        RETURN NEXT part;
    END LOOP;
    IF caught <> '{}' THEN
        INSERT INTO events SELECT * FROM events_caught;
        DROP TABLE events_caught;
    END IF;
END $$;

SELECT count(make_event_partitions) FROM make_event_partitions(3);
