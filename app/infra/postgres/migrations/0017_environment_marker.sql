-- The environment that this database belongs to: at most one row, written once.
CREATE TABLE environment_marker (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    environment text NOT NULL CHECK (environment <> ''),
    marked_at timestamptz NOT NULL DEFAULT now()
);
