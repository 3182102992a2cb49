-- What is remembered of maintenance: since when it is due, the last run, and what images meant then. One row; what is
-- due from the moment that this is applied will be done.

CREATE TABLE maintenance (
    one      boolean PRIMARY KEY DEFAULT true,
    due_from timestamptz NOT NULL,
    run      jsonb,
    images   jsonb       NOT NULL DEFAULT '[]',
    CONSTRAINT maintenance_one_row CHECK (one)
);

INSERT INTO maintenance (due_from) VALUES (now());

-- Retention goes through ended bots, those that ended first at first.
CREATE INDEX IF NOT EXISTS bots_ended ON bots (ended_at, id) WHERE ended_at IS NOT NULL;
