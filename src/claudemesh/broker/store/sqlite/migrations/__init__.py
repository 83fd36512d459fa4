"""The schema of the SQLite store, one numbered file per step."""
