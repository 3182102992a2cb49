-- Slots are on hosts; those made before there were any are on the only one there was.

ALTER TABLE bot_pool_slots ADD COLUMN host text NOT NULL DEFAULT 'local';
