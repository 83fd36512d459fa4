-- What goes into many mailboxes is stored once: channel messages, and the records of epochs.
CREATE TABLE payloads (
    ref         INTEGER PRIMARY KEY,
    sender      INTEGER NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('post', 'epoch')),
    channel     TEXT NOT NULL,
    message_id  TEXT NOT NULL,
    attestation TEXT,
    audit_n     INTEGER NOT NULL,
    accepted_at INTEGER NOT NULL,
    payload     BLOB NOT NULL,
    UNIQUE (sender, message_id, channel, kind)
);

-- A row has a payload of its own, or shares one; a row of an epoch has a slot besides.
CREATE TABLE new_mailbox (
    q           INTEGER PRIMARY KEY AUTOINCREMENT,
    recipient   INTEGER NOT NULL,
    sender      INTEGER NOT NULL,
    message_id  TEXT,
    kind        TEXT NOT NULL CHECK (kind IN ('dm', 'post', 'epoch', 'sys')),
    size        INTEGER NOT NULL,
    scheduled   INTEGER NOT NULL,
    not_before  INTEGER,
    expires_at  INTEGER NOT NULL,
    accepted_at INTEGER NOT NULL,
    attestation TEXT,
    audit_n     INTEGER,
    payload     BLOB,
    shared      INTEGER,
    slot        TEXT,
    CHECK ((payload IS NULL) = (shared IS NOT NULL)),
    CHECK ((message_id IS NULL) = (shared IS NOT NULL))
);
-- Numbers that were given out stay given out, although their rows are gone.
INSERT INTO sqlite_sequence (name, seq) SELECT 'new_mailbox', seq FROM sqlite_sequence WHERE name = 'mailbox';
INSERT INTO new_mailbox
    SELECT q, recipient, sender, message_id, kind, size, scheduled, not_before, expires_at, accepted_at, attestation,
           audit_n, payload, NULL, NULL
    FROM mailbox;
DROP VIEW queued;
DROP TABLE mailbox;
ALTER TABLE new_mailbox RENAME TO mailbox;
CREATE UNIQUE INDEX mailbox_submission ON mailbox (recipient, sender, message_id, kind) WHERE shared IS NULL;
CREATE INDEX mailbox_order ON mailbox (recipient, scheduled, q, size);
CREATE INDEX mailbox_expiry ON mailbox (expires_at);
CREATE INDEX mailbox_due ON mailbox (not_before) WHERE not_before IS NOT NULL;
CREATE INDEX mailbox_shared ON mailbox (shared) WHERE shared IS NOT NULL;

-- The mailbox as a person reads it.
CREATE VIEW queued AS
SELECT q, r.mesh_id, r.peer_id, s.peer_id AS sender, coalesce(m.message_id, p.message_id) AS message_id, m.kind, p.channel,
       size, not_before, expires_at, m.accepted_at, coalesce(m.payload, p.payload) AS payload, slot
FROM mailbox m JOIN peers r ON r.ref = m.recipient JOIN peers s ON s.ref = m.sender LEFT JOIN payloads p ON p.ref = m.shared;

-- Only what differs from the rule of the channel's kind.
CREATE TABLE subscriptions (
    mesh_id TEXT NOT NULL,
    peer_id TEXT NOT NULL,
    channel TEXT NOT NULL,
    wanted  INTEGER NOT NULL,
    PRIMARY KEY (mesh_id, peer_id, channel)
) WITHOUT ROWID;

PRAGMA user_version = 2;
