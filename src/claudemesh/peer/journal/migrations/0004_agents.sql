-- The last hop: which sessions of agents ran here, and which message was put before which of them.

-- `rank`: 0 `now`, 1 `next`, 2 `low`, as it was taken; an acknowledgement wakes nobody.
ALTER TABLE inbox ADD COLUMN rank INTEGER NOT NULL DEFAULT 1;
ALTER TABLE inbox ADD COLUMN is_ack INTEGER NOT NULL DEFAULT 0;
CREATE INDEX inbox_urgent ON inbox (mesh, id) WHERE seen_at IS NULL AND rank = 0;

-- The keys under which an agent's session spoke: they end with the process, `agent` (host and its own session id) does not.
CREATE TABLE agent_sessions (
    mesh      TEXT    NOT NULL,
    session   TEXT    NOT NULL,
    agent     TEXT    NOT NULL,
    label     TEXT    NOT NULL,
    opened_at INTEGER NOT NULL,
    PRIMARY KEY (mesh, session)
) WITHOUT ROWID;

-- Characters `begins` to `ends` of the message in inbox row `message`, given to an adapter for one agent's session.
-- `handed_at`: the host has it; `confirmed_at`: it is in the model's context, by `evidence`; `withdrawn_at`: it was not shown.
CREATE TABLE offers (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    mesh         TEXT    NOT NULL,
    message      INTEGER NOT NULL,
    agent        TEXT    NOT NULL,
    session      TEXT    NOT NULL,
    label        TEXT    NOT NULL,
    adapter      TEXT    NOT NULL,
    begins       INTEGER NOT NULL,
    ends         INTEGER NOT NULL,
    length       INTEGER NOT NULL,
    offered_at   INTEGER NOT NULL,
    handed_at    INTEGER,
    confirmed_at INTEGER,
    evidence     TEXT    NOT NULL DEFAULT '',
    withdrawn_at INTEGER
);
-- No part of a message is put before one agent's session twice.
CREATE UNIQUE INDEX offers_once ON offers (message, agent, begins) WHERE withdrawn_at IS NULL;
CREATE INDEX offers_open ON offers (mesh, agent) WHERE confirmed_at IS NULL AND withdrawn_at IS NULL;

CREATE VIEW offer_rows AS
SELECT mesh, id, message, agent, session, label, adapter, begins, ends, length, offered_at, handed_at, confirmed_at,
       evidence, withdrawn_at
FROM offers;

PRAGMA user_version = 4;
