-- Slots that are on their way out, what is being emptied, and until when a bot that leaves may be waited for.

ALTER TABLE bot_pool_slots
    ADD COLUMN draining       boolean NOT NULL DEFAULT false,
    ADD COLUMN ephemeral      boolean NOT NULL DEFAULT false,
    -- Null where a release before this one wrote the row: patience then ends at stop_at.
    ADD COLUMN stop_latest_at timestamptz;

-- 'platform zoom', 'host local': it gets no new slots, and those it has go when they are free.
CREATE TABLE pool_drains (
    subject    text PRIMARY KEY CHECK (subject ~ '^(platform|host) .'),
    created_at timestamptz NOT NULL DEFAULT now()
);
