"""The audit log in SQLite: chains advance in the transaction of the event that they record."""

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from claudemesh.broker.audit import Chain, Record, details
from claudemesh.broker.store.base import AuditEvent
from claudemesh.broker.store.sqlite.many_rows import ManyRows
from claudemesh.protocol.audit_rows import AuditRow, Metadata, encode_json
from claudemesh.types import ZERO_DIGEST, Digest, MeshId, UnixMillis

MAX_CHAINS: Final = 10_000

_METADATA: Final = msgspec.json.Decoder(Metadata)

_INSERT: Final = ManyRows(
    "INSERT OR FAIL INTO audit_log"
    " (id, mesh_id, event_type, actor_peer_id, target_peer_id, metadata, created_at, prev_hash, hash)"
    " SELECT * FROM (VALUES :rows) WHERE column1 IS NOT NULL",
    width=9,
)
_HEAD: Final = "SELECT id, hash FROM audit_log WHERE mesh_id = ? ORDER BY id DESC LIMIT 1"
_HASH: Final = "SELECT hash FROM audit_log WHERE mesh_id = ? AND id = ?"
_ROWS: Final = (
    "SELECT actor_peer_id, created_at, event_type, id, metadata, prev_hash, target_peer_id"
    " FROM audit_log WHERE mesh_id = ? AND id >= ? ORDER BY id LIMIT ?"
)


class AuditLog:
    """Every mesh's chain; the ends of the active ones are cached."""

    def __init__(self) -> None:
        self._chains: dict[MeshId, Chain] = {}

    def forget(self) -> None:
        """Drop what is cached: something was undone or deleted."""
        self._chains.clear()

    def chain(self, connection: sqlite3.Connection, mesh: MeshId) -> Chain:
        """The end of a mesh's chain, to be advanced; every `Record` it yields must then be inserted. For the writer."""
        chain = self._chains.get(mesh)
        if chain is None:
            chain = self._chains[mesh] = Chain(mesh, *head_of(connection, mesh))
        return chain

    def insert(self, connection: sqlite3.Connection, records: Sequence[Record]) -> None:
        """Store rows that their chains have yielded."""
        _INSERT.execute(connection, records)
        # Only here do the chains in memory end where those in the table do.
        if len(self._chains) > MAX_CHAINS:
            self._chains.clear()

    def record(self, connection: sqlite3.Connection, events: Sequence[AuditEvent], now: UnixMillis) -> None:
        """Append events to the chains of their meshes."""
        self.insert(
            connection,
            [
                self.chain(connection, event.mesh).add(
                    event.event_type,
                    event.actor,
                    event.target,
                    details(count=event.count, priority=event.priority, reason=event.reason),
                    now,
                )
                for event in events
            ],
        )


def head_of(connection: sqlite3.Connection, mesh: MeshId) -> tuple[int, Digest]:
    """How many rows a mesh has, and the hash of the last one."""
    row = connection.execute(_HEAD, (mesh,)).fetchone()
    return (row[0] + 1, Digest(row[1])) if row else (0, ZERO_DIGEST)


def hash_of(connection: sqlite3.Connection, mesh: MeshId, n: int) -> Digest:
    """The hash of a row that exists."""
    return Digest(connection.execute(_HASH, (mesh, n)).fetchone()[0])


def rows_of(connection: sqlite3.Connection, mesh: MeshId, from_n: int, limit: int) -> list[str]:
    """Rows as the canonical JSON that was hashed."""
    found = connection.execute(_ROWS, (mesh, from_n, limit)).fetchall()
    return [
        encode_json(
            AuditRow(actor, created_at, event_type, n, mesh, _METADATA.decode(metadata), previous, target)
        ).decode()
        for actor, created_at, event_type, n, metadata, previous, target in found
    ]
