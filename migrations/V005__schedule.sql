-- Scheduled bots. The state SCHEDULED says where such a bot waits, so there is no second row to disagree with it; its
-- start time is in its spec. No row is SCHEDULED before this.

ALTER TABLE bots ADD CONSTRAINT bots_scheduled_has_a_start CHECK (
    state <> 'SCHEDULED' OR (spec ->> 'start_at') IS NOT NULL);

CREATE INDEX bots_scheduled ON bots (id) WHERE state = 'SCHEDULED';
