"""SQLite with one writer thread and group commit, for the broker's store and the peer's journal (docs/adr/0007)."""

from claudemesh.database.brief import BRIEF_BYTES
from claudemesh.database.engine import Database, Operation
from claudemesh.database.migrations import Migration, load_migrations

__all__ = ["BRIEF_BYTES", "Database", "Migration", "Operation", "load_migrations"]
