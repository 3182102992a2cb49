-- When the clock of the leader leapt ahead, by that clock, where nothing is removed for its age because of it: a server
-- that starts within that day does not see the leap. NULL: the clock is trusted.
ALTER TABLE maintenance ADD COLUMN doubted_from timestamptz;
