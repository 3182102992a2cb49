-- The timetable that `due_from` is said of: where another is in the settings, what it would have had due before is
-- nobody's. "" for none; NULL: written by a server that did not know.
ALTER TABLE maintenance ADD COLUMN timetable text;
