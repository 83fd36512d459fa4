-- Channels: epoch secrets, names, subscriptions, posts of our own, and received posts in the inbox.

-- `statement` is NULL where a member told us the secret: such an epoch is only read with. `publication` is the
-- frame of an epoch of our own until the broker has stored it; until then nothing is sent under it.
CREATE TABLE epochs (
    mesh        TEXT    NOT NULL,
    epoch       TEXT    NOT NULL,
    scope       TEXT    NOT NULL,
    body        BLOB    NOT NULL,
    statement   BLOB,
    secret      BLOB    NOT NULL,
    received_at INTEGER NOT NULL,
    publication BLOB,
    PRIMARY KEY (mesh, epoch)
) WITHOUT ROWID;

-- Signed records whose slot did not open, until a member hands us the secret.
CREATE TABLE epochs_wanted (
    mesh        TEXT    NOT NULL,
    epoch       TEXT    NOT NULL,
    statement   BLOB    NOT NULL,
    received_at INTEGER NOT NULL,
    PRIMARY KEY (mesh, epoch)
) WITHOUT ROWID;

-- Secrets handed on: to each peer once for each epoch.
CREATE TABLE slots_given (
    mesh  TEXT    NOT NULL,
    peer  TEXT    NOT NULL,
    epoch TEXT    NOT NULL,
    at    INTEGER NOT NULL,
    PRIMARY KEY (mesh, peer, epoch)
) WITHOUT ROWID;

-- Posts of epochs that are not held yet: acknowledged, and judged when the epoch comes.
CREATE TABLE parked_posts (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    mesh        TEXT    NOT NULL,
    epoch       TEXT    NOT NULL,
    sender      TEXT    NOT NULL,
    message_id  TEXT    NOT NULL,
    attestation BLOB    NOT NULL,
    frame       BLOB    NOT NULL,
    accepted_at INTEGER NOT NULL,
    parked_at   INTEGER NOT NULL,
    UNIQUE (mesh, sender, message_id, epoch)
);

CREATE TABLE channel_windows (
    mesh       TEXT    NOT NULL,
    session    TEXT    NOT NULL,
    channel    TEXT    NOT NULL,
    highest    INTEGER NOT NULL,
    bitmap     BLOB    NOT NULL,
    keep_until INTEGER NOT NULL,
    PRIMARY KEY (mesh, session, channel)
) WITHOUT ROWID;

-- What channels and groups are called, and since when this peer knows it. `announced` is 0 while a name of our own has not been told to the others.
CREATE TABLE channel_names (
    mesh      TEXT    NOT NULL,
    channel   TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    topic     TEXT    NOT NULL DEFAULT '',
    teller    TEXT    NOT NULL,
    named_at  INTEGER NOT NULL,
    known_at  INTEGER NOT NULL,
    announced INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (mesh, channel)
) WITHOUT ROWID;

-- Whom this peer told the name of a private channel; or, with the space's id, the names of all that everybody may know.
CREATE TABLE names_told (
    mesh    TEXT NOT NULL,
    channel TEXT NOT NULL,
    member  TEXT NOT NULL,
    PRIMARY KEY (mesh, channel, member)
) WITHOUT ROWID;

-- Where this peer differs from what a broker delivers without being asked.
CREATE TABLE subscriptions (
    mesh    TEXT    NOT NULL,
    channel TEXT    NOT NULL,
    wanted  INTEGER NOT NULL,
    PRIMARY KEY (mesh, channel)
) WITHOUT ROWID;

-- The outbox of channels: one row per post. `envelope` is the frame under `epoch`; once accepted it is
-- kept as local history, which a member may share.
CREATE TABLE posts (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    mesh         TEXT    NOT NULL,
    message_id   TEXT    NOT NULL,
    channel      TEXT    NOT NULL,
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
    attestation  TEXT,
    counter      INTEGER,
    epoch        TEXT,
    envelope     BLOB,
    accepted_at  INTEGER,
    stage        TEXT    NOT NULL DEFAULT 'queued',
    witness      TEXT    NOT NULL DEFAULT 'sender',
    UNIQUE (mesh, message_id)
);
CREATE INDEX posts_open ON posts (mesh, rank, id) WHERE state IN ('queued', 'sealed');
CREATE INDEX posts_of_channel ON posts (mesh, channel, id);

-- Who was in the channel when a post was sealed, while they are few enough to confirm it one by one.
CREATE TABLE post_recipients (
    mesh       TEXT NOT NULL,
    message_id TEXT NOT NULL,
    peer       TEXT NOT NULL,
    stage      TEXT NOT NULL DEFAULT 'queued',
    witness    TEXT NOT NULL DEFAULT 'sender',
    PRIMARY KEY (mesh, message_id, peer)
) WITHOUT ROWID;

-- `gap`: messages of the same stream that were missing when this one came. `teller`: who shared it from its history.
ALTER TABLE inbox ADD COLUMN channel TEXT;
ALTER TABLE inbox ADD COLUMN gap INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN is_stale INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN teller TEXT;
CREATE INDEX inbox_of_channel ON inbox (mesh, channel, id) WHERE channel IS NOT NULL;

DROP VIEW inbox_rows;
CREATE VIEW inbox_rows AS
SELECT mesh, id, message_id, sender, session, reply_to, frame, signature, attestation, accepted_at, received_at, seen_at,
       channel, gap, is_stale, teller
FROM inbox;

CREATE VIEW post_rows AS
SELECT mesh, id, message_id, channel, session, content_type, body, rank, intent, reply_to, not_before, expires_at,
       created_at, state, attestation, counter, epoch, envelope, accepted_at, stage, witness
FROM posts;

PRAGMA user_version = 2;
