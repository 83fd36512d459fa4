-- Keys, identifiers and hashes are lower-case hex, as on the wire, and compare byte by byte. Times are milliseconds of Unix time.

-- One row per mesh, held by every transaction that writes to the mesh: its roster's end, how often subscriptions have
-- changed, and the end of its audit chain. A row of length 0 is a mesh that has an audit log and no roster. `ref` tells
-- a mesh from one of the same id that was deleted.
CREATE TABLE meshes (
    mesh_id    text COLLATE "C" PRIMARY KEY,
    ref        bigint GENERATED ALWAYS AS IDENTITY,
    served     boolean NOT NULL DEFAULT false,
    length     bigint NOT NULL DEFAULT 0,
    created_at bigint NOT NULL DEFAULT 0,
    wishes     bigint NOT NULL DEFAULT 0,
    audit_n    bigint NOT NULL DEFAULT 0,
    audit_head text NOT NULL DEFAULT repeat('0', 64),
    head_at    bigint,
    head       bytea
) WITH (fillfactor = 50);

CREATE TABLE roster_entries (
    mesh_id text COLLATE "C" NOT NULL,
    seq     bigint NOT NULL,
    entry   bytea NOT NULL,
    PRIMARY KEY (mesh_id, seq)
);

CREATE TABLE cards (
    mesh_id   text COLLATE "C" NOT NULL,
    member    text COLLATE "C" NOT NULL,
    number    bigint NOT NULL,
    statement bytea NOT NULL,
    PRIMARY KEY (mesh_id, member)
);

CREATE TABLE attestations (
    digest     text COLLATE "C" PRIMARY KEY,
    mesh_id    text COLLATE "C" NOT NULL,
    member     text COLLATE "C" NOT NULL,
    session_id text COLLATE "C" NOT NULL,
    expires_at bigint NOT NULL,
    statement  bytea NOT NULL
);
CREATE INDEX attestations_session ON attestations (mesh_id, session_id);
CREATE INDEX attestations_expiry ON attestations (expires_at);

-- A short number for each peer that has a mailbox, so that rows and indexes of the mailbox are small; when a peer was
-- last heard from; whether it has joined and not left since.
CREATE TABLE peers (
    ref       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mesh_id   text COLLATE "C" NOT NULL,
    peer_id   text COLLATE "C" NOT NULL,
    last_seen bigint NOT NULL DEFAULT 0,
    present   boolean NOT NULL DEFAULT false,
    UNIQUE (mesh_id, peer_id)
);
CREATE INDEX peers_present ON peers (last_seen) WHERE present;

-- Each transaction takes a thousand numbers at once, and uses each never again: a peer may hold an old one in its cursor.
CREATE SEQUENCE mailbox_q AS bigint INCREMENT BY 1000 CACHE 1;

-- What goes into many mailboxes is stored once: channel messages, and the records of epochs.
CREATE TABLE payloads (
    ref         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sender      bigint NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('post', 'epoch')),
    channel     text COLLATE "C" NOT NULL,
    message_id  text COLLATE "C" NOT NULL,
    attestation text,
    audit_n     bigint NOT NULL,
    accepted_at bigint NOT NULL,
    payload     bytea NOT NULL,
    UNIQUE (sender, message_id, channel, kind)
);
-- Ciphertext cannot be compressed.
ALTER TABLE payloads ALTER COLUMN payload SET STORAGE EXTERNAL;

-- A row has a payload of its own, or shares one; a row of an epoch has a slot besides. `lease` is the link that the row
-- was stored for, and is void once its node (the upper 32 bits) stands no longer in `nodes`.
CREATE TABLE mailbox (
    recipient   bigint NOT NULL,
    q           bigint NOT NULL,
    sender      bigint NOT NULL,
    message_id  text COLLATE "C",
    kind        text NOT NULL CHECK (kind IN ('dm', 'post', 'epoch', 'sys')),
    size        bigint NOT NULL,
    not_before  bigint,
    expires_at  bigint NOT NULL,
    accepted_at bigint NOT NULL,
    lease       bigint,
    attestation text,
    audit_n     bigint,
    payload     bytea,
    shared      bigint,
    slot        text,
    PRIMARY KEY (recipient, q),
    CHECK ((payload IS NULL) = (shared IS NOT NULL)),
    CHECK ((message_id IS NULL) = (shared IS NOT NULL))
)
-- An envelope of some 2 KB stays in its row: elsewhere it would be two more rows and an index entry each.
WITH (toast_tuple_target = 4080, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.5);
ALTER TABLE mailbox ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX mailbox_submission ON mailbox (recipient, sender, message_id, kind) WHERE shared IS NULL;
CREATE INDEX mailbox_expiry ON mailbox (expires_at);
CREATE INDEX mailbox_due ON mailbox (not_before) WHERE not_before IS NOT NULL;
CREATE INDEX mailbox_shared ON mailbox (shared) WHERE shared IS NOT NULL;

-- Rows that were leased after they were stored, each to a link; void as `mailbox.lease` is. A table of its own, since an
-- update would write the payload and every index entry again.
CREATE TABLE leases (
    recipient bigint NOT NULL,
    q         bigint NOT NULL,
    link      bigint NOT NULL,
    PRIMARY KEY (recipient, q)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- The mailbox as a person reads it.
CREATE VIEW queued AS
SELECT m.q, r.mesh_id, r.peer_id, s.peer_id AS sender, coalesce(m.message_id, p.message_id) AS message_id, m.kind, p.channel,
       size, not_before, expires_at, m.accepted_at, coalesce(l.link, lease) AS lease, coalesce(m.payload, p.payload) AS payload,
       slot
FROM mailbox m JOIN peers r ON r.ref = m.recipient JOIN peers s ON s.ref = m.sender LEFT JOIN payloads p ON p.ref = m.shared
    LEFT JOIN leases l ON l.recipient = m.recipient AND l.q = m.q;

-- Only what differs from the rule of the channel's kind.
CREATE TABLE subscriptions (
    mesh_id text COLLATE "C" NOT NULL,
    peer_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    wanted  boolean NOT NULL,
    PRIMARY KEY (mesh_id, peer_id, channel)
);

-- What the broker records of its own work: metadata only (docs/spec/audit.md).
CREATE TABLE audit_log (
    id             bigint NOT NULL,
    mesh_id        text COLLATE "C" NOT NULL,
    event_type     text NOT NULL,
    actor_peer_id  text NOT NULL,
    target_peer_id text NOT NULL,
    metadata       jsonb NOT NULL,
    created_at     bigint NOT NULL,
    prev_hash      text NOT NULL,
    hash           text NOT NULL,
    PRIMARY KEY (mesh_id, id)
);

-- The sessions that are connected, each under the link that has announced it.
CREATE TABLE presence (
    mesh_id      text COLLATE "C" NOT NULL,
    peer_id      text COLLATE "C" NOT NULL,
    session_id   text COLLATE "C" NOT NULL,
    sid          text NOT NULL,
    pid          bigint NOT NULL,
    cwd          text NOT NULL,
    status       text NOT NULL,
    connected_at bigint NOT NULL,
    last_seen    bigint NOT NULL,
    link         bigint NOT NULL,
    PRIMARY KEY (mesh_id, peer_id, session_id)
) WITH (fillfactor = 70);
CREATE INDEX presence_link ON presence (link);

-- The processes that use this database. A link's number starts with its node's.
CREATE TABLE nodes (
    node    bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    broker  text NOT NULL,
    alone   boolean NOT NULL,
    beat_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 20);

-- One row that a readiness check writes.
CREATE TABLE readiness (checks bigint NOT NULL) WITH (fillfactor = 20);
INSERT INTO readiness (checks) VALUES (0);
