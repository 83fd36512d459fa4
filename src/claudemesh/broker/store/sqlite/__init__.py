"""The store of a single broker: one SQLite file."""

from claudemesh.broker.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
