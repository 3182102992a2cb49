-- Which slots are in the drain of their platform or their host, apart from their own: the end of one leaves the other.

ALTER TABLE bot_pool_slots
    ADD COLUMN wider_draining boolean NOT NULL DEFAULT false,
    ADD COLUMN wider_drain_by timestamptz;

-- Rows are the Journal's to write; no server runs on them now.
SET LOCAL meeboter.writer = 'journal';

-- Until now both were one. A slot in such a drain is taken to have none of its own.
UPDATE bot_pool_slots AS slot
SET draining = false, drain_by = NULL, wider_draining = true, wider_drain_by = slot.drain_by
WHERE slot.draining AND EXISTS (
    SELECT FROM pool_drains AS drain
    WHERE drain.subject IN ('platform ' || slot.platform, 'host ' || slot.host)
);
