"""state.db: what a peer must not forget, as SQL functions grouped by subject (docs/spec/storage.md §2).

Each function takes the connection of a running transaction, so that callers combine what must become
durable together: `await journal.write(lambda connection: …)`.
"""

from pathlib import Path

from claudemesh.database import Database, load_migrations

__all__ = ["Journal"]


class Journal(Database):
    """The database of one configuration directory, shared by the peers of its meshes."""

    def __init__(self, path: Path | None) -> None:
        """Describe the journal at `path` (mode 0600); None keeps a private one in memory."""
        super().__init__(path, migrations=load_migrations("claudemesh.peer.journal.migrations"))
