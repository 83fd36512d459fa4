-- What waits for an agent, in the order in which it is shown: a hook asks after each tool, whatever else is unread.

DROP INDEX inbox_urgent;
CREATE INDEX inbox_waiting ON inbox (mesh, rank, id) WHERE seen_at IS NULL;

PRAGMA user_version = 8;
