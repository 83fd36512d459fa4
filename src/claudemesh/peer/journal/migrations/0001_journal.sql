-- The journal of one configuration directory: every table holds the rows of several meshes.

CREATE TABLE roster_entries (
    mesh  TEXT    NOT NULL,
    seq   INTEGER NOT NULL,
    entry BLOB    NOT NULL,
    PRIMARY KEY (mesh, seq)
) WITHOUT ROWID;

-- The newest signed head that was verified, as the broker's statement.
CREATE TABLE heads (
    mesh      TEXT NOT NULL PRIMARY KEY,
    statement BLOB NOT NULL
) WITHOUT ROWID;

-- A mesh in which sending has stopped, with the statements that prove why.
CREATE TABLE freezes (
    mesh      TEXT    NOT NULL PRIMARY KEY,
    code      TEXT    NOT NULL,
    frozen_at INTEGER NOT NULL,
    proof     BLOB    NOT NULL
) WITHOUT ROWID;

CREATE TABLE cards (
    mesh      TEXT    NOT NULL,
    member    TEXT    NOT NULL,
    number    INTEGER NOT NULL,
    statement BLOB    NOT NULL,
    PRIMARY KEY (mesh, member)
) WITHOUT ROWID;

-- Own attestations, while envelopes of their sessions may have to be sent again; others' as evidence.
CREATE TABLE attestations (
    mesh       TEXT    NOT NULL,
    digest     TEXT    NOT NULL,
    expires_at INTEGER NOT NULL,
    statement  BLOB    NOT NULL,
    PRIMARY KEY (mesh, digest)
) WITHOUT ROWID;

CREATE TABLE replay_windows (
    mesh       TEXT    NOT NULL,
    session    TEXT    NOT NULL,
    highest    INTEGER NOT NULL,
    bitmap     BLOB    NOT NULL,
    keep_until INTEGER NOT NULL,
    PRIMARY KEY (mesh, session)
) WITHOUT ROWID;

-- One row per message and addressed peer. `envelope` is the frame as it was first transmitted.
CREATE TABLE outbox (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    mesh         TEXT    NOT NULL,
    message_id   TEXT    NOT NULL,
    peer         TEXT    NOT NULL,
    peer_session TEXT,
    session      TEXT,
    content_type TEXT    NOT NULL,
    body         BLOB    NOT NULL,
    rank         INTEGER NOT NULL CHECK (rank BETWEEN 0 AND 2),
    intent       TEXT,
    reply_to     TEXT,
    not_before   INTEGER,
    expires_at   INTEGER,
    created_at   INTEGER NOT NULL,
    state        TEXT    NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'sealed', 'accepted', 'refused', 'expired')),
    resealed     INTEGER NOT NULL DEFAULT 0,
    attestation  TEXT,
    counter      INTEGER,
    envelope     BLOB,
    stage        TEXT    NOT NULL DEFAULT 'queued',
    witness      TEXT    NOT NULL DEFAULT 'sender',
    UNIQUE (mesh, message_id, peer)
);
CREATE INDEX outbox_open ON outbox (mesh, rank, id) WHERE state IN ('queued', 'sealed');
CREATE INDEX outbox_unproven ON outbox (mesh, id) WHERE state = 'accepted' AND stage = 'accepted';

-- What is known of a sent message beyond `queued`, each stage once per witness, with its evidence.
CREATE TABLE timeline (
    mesh        TEXT    NOT NULL,
    message_id  TEXT    NOT NULL,
    peer        TEXT    NOT NULL,
    stage       TEXT    NOT NULL,
    witness     TEXT    NOT NULL,
    at          INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    signer      TEXT    NOT NULL,
    detail      TEXT    NOT NULL DEFAULT '',
    evidence    INTEGER REFERENCES evidence (id),
    PRIMARY KEY (mesh, message_id, peer, stage, witness)
) WITHOUT ROWID;

-- Signed bytes that prove rows of the timeline: a broker's statement, or a frame that a session signed.
CREATE TABLE evidence (
    id          INTEGER PRIMARY KEY,
    kind        TEXT    NOT NULL CHECK (kind IN ('statement', 'frame')),
    content     BLOB    NOT NULL,
    signature   BLOB    NOT NULL,
    attestation TEXT    NOT NULL DEFAULT ''
);

-- Opened and verified messages. `frame` holds header and body as signed; `seen_at` is when a reader took it.
CREATE TABLE inbox (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    mesh           TEXT    NOT NULL,
    message_id     TEXT    NOT NULL,
    sender         TEXT    NOT NULL,
    session        TEXT,
    reply_to       TEXT,
    frame          BLOB    NOT NULL,
    signature      BLOB    NOT NULL,
    attestation    TEXT    NOT NULL,
    accepted_at    INTEGER NOT NULL,
    received_at    INTEGER NOT NULL,
    seen_at        INTEGER,
    UNIQUE (mesh, sender, message_id)
);
CREATE INDEX inbox_unseen ON inbox (mesh, id) WHERE seen_at IS NULL;
CREATE INDEX inbox_replies ON inbox (mesh, reply_to) WHERE reply_to IS NOT NULL;

CREATE TABLE receipts_due (
    mesh       TEXT    NOT NULL,
    sender     TEXT    NOT NULL,
    message_id TEXT    NOT NULL,
    stage      TEXT    NOT NULL,
    session    TEXT,
    at         INTEGER NOT NULL,
    detail     TEXT    NOT NULL DEFAULT '',
    PRIMARY KEY (mesh, sender, message_id, stage)
) WITHOUT ROWID;

CREATE TABLE profiles (
    mesh    TEXT NOT NULL,
    member  TEXT NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (mesh, member)
) WITHOUT ROWID;

-- The user keys that have used a name, the first one first; more than one makes the name ambiguous.
CREATE TABLE pins (
    mesh      TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    user      TEXT    NOT NULL,
    pinned_at INTEGER NOT NULL,
    PRIMARY KEY (mesh, name, user)
) WITHOUT ROWID;

-- Which version of the own profile each peer was sent.
CREATE TABLE profiles_sent (
    mesh   TEXT NOT NULL,
    member TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (mesh, member)
) WITHOUT ROWID;

CREATE TABLE nacks_sent (
    mesh       TEXT    NOT NULL,
    sender     TEXT    NOT NULL,
    message_id TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (mesh, sender, message_id)
) WITHOUT ROWID;

-- Envelopes that were refused for good: codes and counts, no content.
CREATE TABLE quarantine (
    mesh     TEXT    NOT NULL,
    code     TEXT    NOT NULL,
    sender   TEXT    NOT NULL,
    count    INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    last_at  INTEGER NOT NULL,
    PRIMARY KEY (mesh, code, sender)
) WITHOUT ROWID;

-- Rows of the broker's audit log that it acknowledged, until the log was checked to hold them.
CREATE TABLE audit_receipts (
    mesh TEXT    NOT NULL,
    n    INTEGER NOT NULL,
    hash TEXT    NOT NULL,
    PRIMARY KEY (mesh, n)
) WITHOUT ROWID;

-- How far the broker's audit log was verified, with the last checkpoint.
CREATE TABLE audit_views (
    mesh       TEXT    NOT NULL PRIMARY KEY,
    n          INTEGER NOT NULL,
    head       TEXT    NOT NULL,
    checkpoint BLOB
) WITHOUT ROWID;

-- What the broker's audit log contradicted, with the statements that prove it.
CREATE TABLE audit_findings (
    mesh   TEXT    NOT NULL PRIMARY KEY,
    code   TEXT    NOT NULL,
    detail TEXT    NOT NULL,
    at     INTEGER NOT NULL,
    proof  BLOB    NOT NULL
) WITHOUT ROWID;

-- The rows as the code reads them, in this order of columns.
CREATE VIEW outbox_rows AS
SELECT mesh, id, message_id, peer, peer_session, session, content_type, body, rank, intent, reply_to, not_before,
       expires_at, created_at, state, resealed, attestation, counter, envelope, stage, witness
FROM outbox;

CREATE VIEW inbox_rows AS
SELECT mesh, id, message_id, sender, session, reply_to, frame, signature, attestation, accepted_at, received_at, seen_at
FROM inbox;

PRAGMA user_version = 1;
