-- What was told of an agent's session: it goes by the same name after a restart, and is reached the same way.

ALTER TABLE agent_sessions ADD COLUMN reach TEXT NOT NULL DEFAULT 'asked';
ALTER TABLE agent_sessions ADD COLUMN about TEXT NOT NULL DEFAULT '';
-- Separated by commas, which no tag holds.
ALTER TABLE agent_sessions ADD COLUMN tags TEXT NOT NULL DEFAULT '';

PRAGMA user_version = 7;
