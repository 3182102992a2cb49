-- Operators may ask for what concerns every user: slots, the whole queue, drains, pulls.

ALTER TABLE users ADD COLUMN is_operator boolean NOT NULL DEFAULT false;

-- The user of the first key runs this installation.
UPDATE users SET is_operator = true WHERE name = 'admin';
