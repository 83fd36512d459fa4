-- Loops, cost and leaks: where a message stands in its conversation, what waits for a person, and what a person decided.

ALTER TABLE outbox ADD COLUMN root TEXT;
ALTER TABLE outbox ADD COLUMN hop INTEGER;
ALTER TABLE posts ADD COLUMN root TEXT;
ALTER TABLE posts ADD COLUMN hop INTEGER;

DROP VIEW outbox_rows;
CREATE VIEW outbox_rows AS
SELECT mesh, id, message_id, peer, peer_session, session, content_type, body, rank, intent, reply_to, not_before,
       expires_at, created_at, state, resealed, attestation, counter, envelope, root, hop, stage, witness
FROM outbox;

DROP VIEW post_rows;
CREATE VIEW post_rows AS
SELECT mesh, id, message_id, channel, session, content_type, body, rank, intent, reply_to, not_before, expires_at,
       created_at, state, attestation, counter, epoch, envelope, accepted_at, root, hop, stage, witness
FROM posts;

-- Authentic messages that no reader gets before a person releases them: as they would stand in `inbox`, with the reason.
-- `refused_at`: a person did not want it; the text is gone, the row stays so that a copy is refused as well.
CREATE TABLE held (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    mesh         TEXT    NOT NULL,
    message_id   TEXT    NOT NULL,
    sender       TEXT    NOT NULL,
    session      TEXT,
    reply_to     TEXT,
    frame        BLOB    NOT NULL,
    signature    BLOB    NOT NULL,
    attestation  TEXT    NOT NULL,
    accepted_at  INTEGER NOT NULL,
    received_at  INTEGER NOT NULL,
    channel      TEXT,
    gap          INTEGER NOT NULL,
    is_stale     INTEGER NOT NULL,
    rank         INTEGER NOT NULL,
    is_confirmed INTEGER NOT NULL,
    expires_at   INTEGER,
    reason       TEXT    NOT NULL,
    reached      INTEGER NOT NULL,
    allowed      INTEGER NOT NULL,
    refused_at   INTEGER,
    UNIQUE (mesh, sender, message_id)
);

-- How much agents may cause here before a person is asked. `subject` is the key of a peer or user, '' for everybody.
CREATE TABLE budgets (
    mesh       TEXT    NOT NULL,
    subject    TEXT    NOT NULL,
    name       TEXT    NOT NULL CHECK (name IN ('hops', 'pair', 'session', 'sends')),
    amount     INTEGER NOT NULL,
    decided_at INTEGER NOT NULL,
    PRIMARY KEY (mesh, subject, name)
) WITHOUT ROWID;

-- What is quiet here by a person's word: `paused` (no agent gets or sends anything), `dnd` (only what may interrupt).
CREATE TABLE quiet (
    mesh  TEXT    NOT NULL,
    kind  TEXT    NOT NULL CHECK (kind IN ('paused', 'dnd')),
    since INTEGER NOT NULL,
    PRIMARY KEY (mesh, kind)
) WITHOUT ROWID;

PRAGMA user_version = 5;
