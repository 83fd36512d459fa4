-- Keys, identifiers and hashes are lower-case hex, as on the wire.

CREATE TABLE meshes (
    mesh_id    TEXT PRIMARY KEY,
    served     INTEGER NOT NULL,
    length     INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE roster_entries (
    mesh_id TEXT NOT NULL,
    seq     INTEGER NOT NULL,
    entry   BLOB NOT NULL,
    PRIMARY KEY (mesh_id, seq)
) WITHOUT ROWID;

CREATE TABLE cards (
    mesh_id   TEXT NOT NULL,
    member    TEXT NOT NULL,
    number    INTEGER NOT NULL,
    statement BLOB NOT NULL,
    PRIMARY KEY (mesh_id, member)
) WITHOUT ROWID;

CREATE TABLE attestations (
    digest     TEXT PRIMARY KEY,
    mesh_id    TEXT NOT NULL,
    member     TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    statement  BLOB NOT NULL
) WITHOUT ROWID;

-- A short number for each peer that has a mailbox, so that rows and indexes of the mailbox are small.
CREATE TABLE peers (
    ref       INTEGER PRIMARY KEY AUTOINCREMENT,
    mesh_id   TEXT NOT NULL,
    peer_id   TEXT NOT NULL,
    last_seen INTEGER NOT NULL DEFAULT 0,
    UNIQUE (mesh_id, peer_id)
);

-- AUTOINCREMENT keeps q from being used again after a delete: a peer may still hold an old one in its cursor.
CREATE TABLE mailbox (
    q           INTEGER PRIMARY KEY AUTOINCREMENT,
    recipient   INTEGER NOT NULL,
    sender      INTEGER NOT NULL,
    message_id  TEXT NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('dm', 'sys')),
    size        INTEGER NOT NULL,
    scheduled   INTEGER NOT NULL,
    not_before  INTEGER,
    expires_at  INTEGER NOT NULL,
    accepted_at INTEGER NOT NULL,
    attestation TEXT,
    audit_n     INTEGER,
    payload     BLOB NOT NULL
);
CREATE UNIQUE INDEX mailbox_submission ON mailbox (recipient, sender, message_id, kind);
CREATE INDEX mailbox_order ON mailbox (recipient, scheduled, q, size);
CREATE INDEX mailbox_expiry ON mailbox (expires_at);
CREATE INDEX mailbox_due ON mailbox (not_before) WHERE not_before IS NOT NULL;

-- The mailbox as a person reads it.
CREATE VIEW queued AS
SELECT q, r.mesh_id, r.peer_id, s.peer_id AS sender, message_id, kind, size, not_before, expires_at, accepted_at, payload
FROM mailbox JOIN peers r ON r.ref = recipient JOIN peers s ON s.ref = sender;

CREATE TABLE audit_log (
    id             INTEGER NOT NULL,
    mesh_id        TEXT NOT NULL,
    event_type     TEXT NOT NULL,
    actor_peer_id  TEXT NOT NULL,
    target_peer_id TEXT NOT NULL,
    metadata       TEXT NOT NULL,
    created_at     INTEGER NOT NULL,
    prev_hash      TEXT NOT NULL,
    hash           TEXT NOT NULL,
    PRIMARY KEY (mesh_id, id)
) WITHOUT ROWID;

CREATE TABLE presence (
    mesh_id      TEXT NOT NULL,
    peer_id      TEXT NOT NULL,
    session_id   TEXT NOT NULL,
    sid          TEXT NOT NULL,
    pid          INTEGER NOT NULL,
    cwd          TEXT NOT NULL,
    status       TEXT NOT NULL,
    connected_at INTEGER NOT NULL,
    last_seen    INTEGER NOT NULL,
    link         INTEGER NOT NULL,
    PRIMARY KEY (mesh_id, peer_id, session_id)
) WITHOUT ROWID;
CREATE INDEX presence_link ON presence (link);

-- One row that a readiness check writes.
CREATE TABLE readiness (checks INTEGER NOT NULL);
INSERT INTO readiness (checks) VALUES (0);

PRAGMA user_version = 1;
