-- enter: from here to the end of the transaction, tables are looked for in the shadow first
SELECT set_config('search_path', $1 || ', public', true), set_config('timezone', 'UTC', true);

-- last_subject: the last one that the shadow may have events of
SELECT max(subject) FROM cut;

-- allowed: how far some subjects count
SELECT subject, sequence FROM cut WHERE subject = ANY ($1::text[]);

-- left_out: events of some subjects that somebody discarded
SELECT subject, sequence FROM dead_letters
WHERE consumer_group = $1 AND state = 'discarded' AND subject = ANY ($2::text[]);

-- moved: subjects with which the group has come further than the shadow
SELECT m.subject, coalesce(c.sequence, 0) AS behind, m.sequence AS last
FROM public.marks m LEFT JOIN cut c ON c.subject = m.subject
WHERE m.consumer_group = $1 AND m.sequence > coalesce(c.sequence, 0)
LIMIT $2;

-- advance: the shadow has come this far with these
INSERT INTO cut (subject, sequence) SELECT * FROM unnest($1::text[], $2::int[])
ON CONFLICT (subject) DO UPDATE SET sequence = excluded.sequence;

-- columns: what a table's rows hold beside their keys
SELECT attname AS name, typcategory = 'N' AS is_number FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE attrelid = ('public.' || $1)::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
    AND attname <> ALL ($2::text[]) ORDER BY attnum;
