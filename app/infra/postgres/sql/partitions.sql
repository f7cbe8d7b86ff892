-- make: the partitions that are missing, of this month and some after it; their names
SELECT make_event_partitions AS name FROM make_event_partitions($1);

-- there_is: whether events are in partitions already
SELECT to_regprocedure('make_event_partitions(integer)') IS NOT NULL;

-- all: the partitions in order, with what they hold; the net comes last
SELECT name, begins, ends FROM event_partitions ORDER BY begins NULLS LAST;

-- begin: a table like the partitions
SELECT make_events_table($1);
