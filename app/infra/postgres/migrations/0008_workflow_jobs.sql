-- What Temporal is still to be told of workflows that are not orders': start one, or wake it.
CREATE TABLE workflow_jobs (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind          text NOT NULL,                    -- decides the workflow's type and queue
    workflow_id   text NOT NULL,
    argument      text NOT NULL,                    -- JSON: ids and numbers, never personal data or secrets
    signal        text,                             -- null: only start
    created_at    timestamptz NOT NULL DEFAULT now(),
    claimed_until timestamptz NOT NULL DEFAULT '-infinity'
);
