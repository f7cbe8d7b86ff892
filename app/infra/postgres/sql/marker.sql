-- there_is: whether this database can be marked
SELECT to_regclass('environment_marker') IS NOT NULL

-- read: the environment that it belongs to
SELECT environment FROM environment_marker

-- write: mark it, unless it is marked
INSERT INTO environment_marker (environment) VALUES ($1) ON CONFLICT DO NOTHING
