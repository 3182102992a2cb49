-- Bots that a slot gave back to the queue: in how many slots their start has failed, when the last gave them back and
-- why. Null where none did.

ALTER TABLE bots
    ADD COLUMN failed_starts   bigint NOT NULL DEFAULT 0,
    ADD COLUMN returned_at     timestamptz,
    ADD COLUMN returned_detail text,
    ADD CONSTRAINT bots_return_is_whole CHECK ((returned_at IS NULL) = (returned_detail IS NULL)),
    ADD CONSTRAINT bots_failed_starts_count CHECK (failed_starts >= 0);
