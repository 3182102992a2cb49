-- A free slot may have the container for its next bot ready. The row of an idle slot says how far that is in `step` (NULL:
-- none, and none is made), the container in `container_id` and the next try in `retry_at`, as other states do.

-- What a container that is made ahead of need may use, and how often that failed in a row.
ALTER TABLE bot_pool_slots ADD COLUMN preparation jsonb;

-- The same as before, and what belongs to a preparation; a release that knows none writes rows that still pass.
CREATE OR REPLACE FUNCTION check_slot() RETURNS trigger
    LANGUAGE plpgsql AS
$$
DECLARE
    in_use boolean := NEW.status IN ('deploying', 'busy');
    broken text := CASE
        WHEN NEW.generation < 0 OR NEW.operation < 0 OR NEW.version < 1 THEN 'bot_pool_slots_counts'
        WHEN NOT CASE NEW.status
            WHEN 'idle' THEN
                coalesce(NEW.step IN ('preparing', 'prepared', 'unprepared', 'removing', 'lingering'), true)
            WHEN 'deploying' THEN coalesce(NEW.step IN ('pulling', 'resuming', 'starting', 'retrying', 'restarting'), false)
            WHEN 'busy' THEN coalesce(NEW.step IN ('running', 'leaving', 'stopping'), false)
            WHEN 'error' THEN coalesce(NEW.step IN ('waiting', 'stopping'), false)
            ELSE false
        END THEN 'bot_pool_slots_status_and_step'
        WHEN in_use <> (NEW.assigned_bot_id IS NOT NULL) THEN 'bot_pool_slots_bot_where_deploying_or_busy'
        WHEN NEW.container_id IS NOT NULL AND NEW.status NOT IN ('busy', 'error')
            AND NOT coalesce(NEW.status = 'idle' AND NEW.step IN ('prepared', 'removing', 'lingering'), false) THEN
            'bot_pool_slots_container_where_one_may_be'
        WHEN NEW.last_used_at IS NOT NULL AND NEW.status <> 'idle' THEN 'bot_pool_slots_last_used_where_idle'
        WHEN (NEW.status = 'deploying') <> (NEW.deploy_deadline_at IS NOT NULL)
            OR (NEW.status = 'deploying') <> (NEW.deploy_attempts IS NOT NULL) THEN
            'bot_pool_slots_deploying_has_a_deadline'
        WHEN coalesce(NEW.status IN ('idle', 'deploying') AND NEW.step IN ('retrying', 'unprepared', 'lingering'), false)
            <> (NEW.retry_at IS NOT NULL) THEN 'bot_pool_slots_retrying_says_when'
        WHEN NEW.status = 'idle' AND NEW.step IS NOT NULL AND NEW.preparation IS NULL THEN
            'bot_pool_slots_preparation_is_whole'
        WHEN NEW.status = 'idle' AND NEW.step = 'prepared' AND NEW.container_id IS NULL THEN
            'bot_pool_slots_prepared_names_its_container'
        WHEN coalesce(NEW.status = 'busy' AND NEW.step = 'running', false) <> (NEW.leave_at IS NOT NULL) THEN
            'bot_pool_slots_running_says_until_when'
        WHEN coalesce(NEW.status = 'busy' AND NEW.step = 'leaving', false) <> (NEW.stop_at IS NOT NULL) THEN
            'bot_pool_slots_leaving_says_until_when'
        WHEN (NEW.status = 'error') <> (NEW.error_message IS NOT NULL)
            OR (NEW.status = 'error') <> (NEW.error_since IS NOT NULL)
            OR (NEW.status = 'error') <> (NEW.recovery_attempts IS NOT NULL) THEN 'bot_pool_slots_error_says_what'
        WHEN coalesce(NEW.status = 'error' AND NEW.step = 'waiting', false) <> (NEW.recovery_at IS NOT NULL) THEN
            'bot_pool_slots_waiting_says_until_when'
    END;
BEGIN
    IF broken IS NOT NULL THEN
        PERFORM refuse_row('bot_pool_slots', NEW.name, broken);
    END IF;
    RETURN NEW;
END
$$;
