"""The store of a broker of one or many nodes: a PostgreSQL database (docs/adr/0010)."""

from claudemesh.broker.store.postgres.store import PostgresStore
from claudemesh.broker.store.url import DatabaseUrl

__all__ = ["DatabaseUrl", "PostgresStore"]
