-- Bots that wait for their start, without those that had one and have ended: a start reads these alone, however many
-- bots there have been. Whether a bot has ended is in an index already, so no update becomes dearer. In a long table, make
-- the index by hand first (README.md).
CREATE INDEX IF NOT EXISTS bots_live_with_a_start ON bots (id)
    WHERE ended_at IS NULL AND spec ->> 'start_at' IS NOT NULL;
DROP INDEX IF EXISTS bots_with_a_start;
