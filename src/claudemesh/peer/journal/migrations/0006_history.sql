-- What members shared of a channel's history before this peer had the epoch that opens it.
CREATE TABLE kept_history (
    id           INTEGER PRIMARY KEY,
    mesh         TEXT    NOT NULL,
    sharer       TEXT    NOT NULL,
    scope        TEXT    NOT NULL,
    epoch        TEXT    NOT NULL,
    content_type TEXT    NOT NULL CHECK (content_type IN ('cm/history', 'cm/past')),
    body         BLOB    NOT NULL,
    kept_at      INTEGER NOT NULL
);
CREATE INDEX kept_history_of_sharer ON kept_history (mesh, sharer);

PRAGMA user_version = 6;
