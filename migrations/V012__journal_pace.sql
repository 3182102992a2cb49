-- What every decision of the Journal paid for and nobody needs: together more than half of PostgreSQL's time.

-- --- references ------------------------------------------------------------------------------------------------------
-- The Journal alone writes these tables, and a decision
-- holds a bot together with the slot and the events that refer to it: a look at the bot, and at its user, for each row
-- told it what it knew. A slot's uuid is random and never looked up here. That a bot has one slot, and one
-- place in the queue, stays a constraint.
ALTER TABLE bots DROP CONSTRAINT bots_user_id_fkey;
ALTER TABLE events DROP CONSTRAINT events_bot_id_fkey;
ALTER TABLE bot_pool_slots DROP CONSTRAINT bot_pool_slots_assigned_bot_id_fkey;
ALTER TABLE bot_pool_slots DROP CONSTRAINT bot_pool_slots_id_key;

-- A bot's history goes with it, as the reference had it.
CREATE FUNCTION delete_events_of_bot() RETURNS trigger
    LANGUAGE plpgsql AS
$$
BEGIN
    DELETE FROM events WHERE bot_id = OLD.id;
    RETURN NULL;
END
$$;

CREATE TRIGGER bots_delete_events
    AFTER DELETE ON bots
    FOR EACH ROW EXECUTE FUNCTION delete_events_of_bot();

-- Bots are the running server's too: one that is deleted by hand would leave its slot without it.
CREATE FUNCTION refuse_deleting_bots() RETURNS trigger
    LANGUAGE plpgsql AS
$$
BEGIN
    IF NOT journal_writes() THEN
        RAISE EXCEPTION '% of bots by hand is refused: a slot, the queue and events refer to them. With the server stopped, a transaction that begins with SET LOCAL meeboter.writer = ''journal'' may delete bots that have ended, and their events.', TG_OP
            USING ERRCODE = 'MB004';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER bots_refuse_deleting
    BEFORE DELETE OR TRUNCATE ON bots
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_deleting_bots();

-- --- scheduled bots ---------------------------------------------------------------------------------------------------
-- An index that asks for the state is written at every change of every bot's state; whether a bot was asked for with a
-- start time never changes.
DROP INDEX bots_scheduled;
CREATE INDEX bots_with_a_start ON bots (id) WHERE spec ->> 'start_at' IS NOT NULL;

-- --- what a row in a given state must have ---------------------------------------------------------------------------
-- PostgreSQL reads every CHECK of a table anew for each statement, which cost more than the rows. One compiled function
-- says the same; the names are those that the CHECKs had.

ALTER TABLE bots
    DROP CONSTRAINT bots_id_positive,
    DROP CONSTRAINT bots_state_known,
    DROP CONSTRAINT bots_final_has_its_end,
    DROP CONSTRAINT bots_seat_is_whole,
    DROP CONSTRAINT bots_waiting_has_no_seat,
    DROP CONSTRAINT bots_scheduled_has_a_start,
    DROP CONSTRAINT bots_running_has_a_seat,
    DROP CONSTRAINT bots_report_seq_counts,
    DROP CONSTRAINT bots_return_is_whole,
    DROP CONSTRAINT bots_failed_starts_count,
    DROP CONSTRAINT bots_version_counts;

ALTER TABLE bot_pool_slots
    DROP CONSTRAINT bot_pool_slots_status_and_step,
    DROP CONSTRAINT bot_pool_slots_bot_where_deploying_or_busy,
    DROP CONSTRAINT bot_pool_slots_container_where_one_may_be,
    DROP CONSTRAINT bot_pool_slots_last_used_where_idle,
    DROP CONSTRAINT bot_pool_slots_deploying_has_a_deadline,
    DROP CONSTRAINT bot_pool_slots_retrying_says_when,
    DROP CONSTRAINT bot_pool_slots_running_says_until_when,
    DROP CONSTRAINT bot_pool_slots_leaving_says_until_when,
    DROP CONSTRAINT bot_pool_slots_error_says_what,
    DROP CONSTRAINT bot_pool_slots_waiting_says_until_when,
    DROP CONSTRAINT bot_pool_slots_counts;

-- Refuses the row as a CHECK of this name would.
CREATE FUNCTION refuse_row(its_table text, its_key text, rule text) RETURNS void
    LANGUAGE plpgsql AS
$$
BEGIN
    RAISE EXCEPTION '% %: violates check constraint "%"', its_table, its_key, rule
        USING ERRCODE = 'check_violation', TABLE = its_table, CONSTRAINT = rule;
END
$$;

CREATE FUNCTION check_bot() RETURNS trigger
    LANGUAGE plpgsql AS
$$
DECLARE
    broken text := CASE
        WHEN NEW.id <= 0 THEN 'bots_id_positive'
        WHEN NEW.version < 1 THEN 'bots_version_counts'
        WHEN NEW.report_seq < 0 THEN 'bots_report_seq_counts'
        WHEN NEW.failed_starts < 0 THEN 'bots_failed_starts_count'
        WHEN (NEW.returned_at IS NULL) <> (NEW.returned_detail IS NULL) THEN 'bots_return_is_whole'
        WHEN (NEW.slot_name IS NULL) <> (NEW.generation IS NULL) THEN 'bots_seat_is_whole'
        WHEN (NEW.end_reason IS NULL) <> (NEW.end_detail IS NULL) THEN 'bots_final_has_its_end'
        WHEN (NEW.end_reason IS NULL) <> (NEW.ended_at IS NULL) THEN 'bots_final_has_its_end'
        WHEN NEW.state IN ('DONE', 'FATAL') THEN
            CASE WHEN NEW.end_reason IS NULL THEN 'bots_final_has_its_end' END
        WHEN NEW.end_reason IS NOT NULL THEN 'bots_final_has_its_end'
        WHEN NEW.state IN ('SCHEDULED', 'QUEUED') THEN
            CASE
                WHEN NEW.slot_name IS NOT NULL THEN 'bots_waiting_has_no_seat'
                WHEN NEW.state = 'SCHEDULED' AND NEW.spec ->> 'start_at' IS NULL THEN 'bots_scheduled_has_a_start'
            END
        WHEN NEW.state IN ('DEPLOYING', 'JOINING_CALL', 'IN_WAITING_ROOM', 'IN_CALL', 'RECORDING', 'LEAVING') THEN
            CASE WHEN NEW.slot_name IS NULL THEN 'bots_running_has_a_seat' END
        ELSE 'bots_state_known'
    END;
BEGIN
    IF broken IS NOT NULL THEN
        PERFORM refuse_row('bots', NEW.id::text, broken);
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER bots_check
    BEFORE INSERT OR UPDATE ON bots
    FOR EACH ROW EXECUTE FUNCTION check_bot();

CREATE FUNCTION check_slot() RETURNS trigger
    LANGUAGE plpgsql AS
$$
DECLARE
    in_use boolean := NEW.status IN ('deploying', 'busy');
    broken text := CASE
        WHEN NEW.generation < 0 OR NEW.operation < 0 OR NEW.version < 1 THEN 'bot_pool_slots_counts'
        WHEN NOT CASE NEW.status
            WHEN 'idle' THEN NEW.step IS NULL
            WHEN 'deploying' THEN coalesce(NEW.step IN ('pulling', 'starting', 'retrying', 'restarting'), false)
            WHEN 'busy' THEN coalesce(NEW.step IN ('running', 'leaving', 'stopping'), false)
            WHEN 'error' THEN coalesce(NEW.step IN ('waiting', 'stopping'), false)
            ELSE false
        END THEN 'bot_pool_slots_status_and_step'
        WHEN in_use <> (NEW.assigned_bot_id IS NOT NULL) THEN 'bot_pool_slots_bot_where_deploying_or_busy'
        WHEN NEW.container_id IS NOT NULL AND NEW.status NOT IN ('busy', 'error') THEN
            'bot_pool_slots_container_where_one_may_be'
        WHEN NEW.last_used_at IS NOT NULL AND NEW.status <> 'idle' THEN 'bot_pool_slots_last_used_where_idle'
        WHEN (NEW.status = 'deploying') <> (NEW.deploy_deadline_at IS NOT NULL)
            OR (NEW.status = 'deploying') <> (NEW.deploy_attempts IS NOT NULL) THEN
            'bot_pool_slots_deploying_has_a_deadline'
        WHEN coalesce(NEW.status = 'deploying' AND NEW.step = 'retrying', false) <> (NEW.retry_at IS NOT NULL) THEN
            'bot_pool_slots_retrying_says_when'
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

CREATE TRIGGER bot_pool_slots_check
    BEFORE INSERT OR UPDATE ON bot_pool_slots
    FOR EACH ROW EXECUTE FUNCTION check_slot();
