-- next_token: greater than all before it. The sequence alone would come back with numbers that were given out
-- already, if the server were killed before it wrote them down; a message in the log makes the commit wait for it
SELECT nextval('fencing_tokens') AS token, pg_logical_emit_message(true, 'fencing', '') AS written;

-- guard: the newest token that has written under a name, unless there is a newer one; locked until the end
INSERT INTO fences (name, token) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET token = excluded.token WHERE fences.token <= excluded.token
RETURNING token;
