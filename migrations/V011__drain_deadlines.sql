-- When bots that are still in a drain are asked to leave. Null: they stay for as long as they like.

ALTER TABLE pool_drains ADD COLUMN deadline_at timestamptz;

ALTER TABLE bot_pool_slots ADD COLUMN drain_by timestamptz;
