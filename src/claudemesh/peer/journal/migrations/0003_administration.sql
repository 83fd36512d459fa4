-- What a person decides on this machine: who may do what here, which head of the roster to trust, which sessions to hand out.

-- `subject` is the key of a peer or of a user, `session` a label of a session of ours ('' for all of them).
CREATE TABLE grants (
    mesh       TEXT    NOT NULL,
    subject    TEXT    NOT NULL,
    session    TEXT    NOT NULL,
    permission TEXT    NOT NULL CHECK (permission IN ('dm', 'ask', 'channel', 'now', 'transcript', 'block')),
    is_allowed INTEGER NOT NULL,
    decided_at INTEGER NOT NULL,
    PRIMARY KEY (mesh, subject, session, permission)
) WITHOUT ROWID;

-- Which head a peer named in the message that froze the mesh.
CREATE TABLE head_claims (
    mesh      TEXT    NOT NULL,
    member    TEXT    NOT NULL,
    seq       INTEGER NOT NULL,
    head      TEXT    NOT NULL,
    signed_at INTEGER NOT NULL,
    signature TEXT    NOT NULL,
    seen_at   INTEGER NOT NULL,
    PRIMARY KEY (mesh, member)
) WITHOUT ROWID;

-- Freezes that a person resolved, with the proof of each and the head that was trusted.
CREATE TABLE freeze_decisions (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    mesh       TEXT    NOT NULL,
    code       TEXT    NOT NULL,
    frozen_at  INTEGER NOT NULL,
    proof      BLOB    NOT NULL,
    trusted    TEXT    NOT NULL,
    seq        INTEGER NOT NULL,
    decided_at INTEGER NOT NULL
);

-- Peers whose branch of the roster was decided against: what they send is refused, and freezes nothing again.
CREATE TABLE rejected_peers (
    mesh       TEXT    NOT NULL,
    member     TEXT    NOT NULL,
    decided_at INTEGER NOT NULL,
    PRIMARY KEY (mesh, member)
) WITHOUT ROWID;

-- Sessions that were handed out: their keys are not here. `ended_at` is 0 while they live.
CREATE TABLE handed_out (
    mesh         TEXT    NOT NULL,
    session      TEXT    NOT NULL,
    label        TEXT    NOT NULL,
    capabilities TEXT    NOT NULL,
    issued_at    INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    ended_at     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (mesh, session)
) WITHOUT ROWID;

PRAGMA user_version = 3;
