-- A user's plan says which priority the user's bots have in the queue.

ALTER TABLE users ADD COLUMN plan text NOT NULL DEFAULT 'standard'
    CONSTRAINT users_plan_known CHECK (plan IN ('enterprise', 'professional', 'standard', 'free'));
