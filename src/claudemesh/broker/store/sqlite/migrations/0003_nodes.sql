-- What another node of the same broker may have changed since it was read: subscriptions, counted; and the one signed
-- head of each length.
ALTER TABLE meshes ADD COLUMN wishes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE meshes ADD COLUMN head_at INTEGER;
ALTER TABLE meshes ADD COLUMN head BLOB;

-- Whose sessions a listing shows with their attestations, although another node holds their links.
ALTER TABLE attestations ADD COLUMN session_id TEXT NOT NULL DEFAULT '';
CREATE INDEX attestations_session ON attestations (mesh_id, session_id);

-- Whether a peer has joined and not left since.
ALTER TABLE peers ADD COLUMN present INTEGER NOT NULL DEFAULT 0;
CREATE INDEX peers_present ON peers (last_seen) WHERE present = 1;

PRAGMA user_version = 3;
