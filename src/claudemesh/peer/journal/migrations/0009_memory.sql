-- Since when what was received in a mesh is remembered without a gap; no row: since it was joined.
CREATE TABLE memory (
    mesh  TEXT    NOT NULL PRIMARY KEY,
    since INTEGER NOT NULL
) WITHOUT ROWID;

PRAGMA user_version = 9;
