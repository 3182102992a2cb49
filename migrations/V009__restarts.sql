-- A slot whose container is stopped so that another can be started for the same bot. The list grows; no row is in that
-- step before this.

ALTER TABLE bot_pool_slots DROP CONSTRAINT bot_pool_slots_status_and_step;
ALTER TABLE bot_pool_slots ADD CONSTRAINT bot_pool_slots_status_and_step CHECK (
    (status = 'idle' AND step IS NULL)
    OR (status = 'deploying' AND step IN ('pulling', 'starting', 'retrying', 'restarting') AND step IS NOT NULL)
    OR (status = 'busy' AND step IN ('running', 'leaving', 'stopping') AND step IS NOT NULL)
    OR (status = 'error' AND step IN ('waiting', 'stopping') AND step IS NOT NULL));
