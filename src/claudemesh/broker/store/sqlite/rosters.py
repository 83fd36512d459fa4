"""Meshes and their roster entries in SQLite."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

from claudemesh.broker.store.base import HeadRow, MeshEnd, MeshRow, Outdated, Version
from claudemesh.broker.store.sqlite.many_rows import ManyRows
from claudemesh.types import MeshId, UnixMillis

_LENGTH: Final = "SELECT length FROM meshes WHERE mesh_id = ?"
_SAVE: Final = """
    INSERT INTO meshes (mesh_id, served, length, created_at, head_at, head) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (mesh_id) DO UPDATE
    SET served = excluded.served, length = excluded.length, head_at = excluded.head_at, head = excluded.head
"""
_ENDS: Final = """
    SELECT mesh_id, length, wishes, head_at, head FROM meshes WHERE mesh_id IN (SELECT value FROM json_each(?))
"""
_RENEW: Final = """
    UPDATE meshes SET head_at = ?, head = ? WHERE mesh_id = ? AND length = ? AND (head_at IS NULL OR head_at < ?)
"""
_WISH: Final = "UPDATE meshes SET wishes = wishes + 1 WHERE mesh_id = ?"
_INSERT: Final = ManyRows(
    "INSERT OR FAIL INTO roster_entries (seq, mesh_id, entry) SELECT * FROM (VALUES :rows) WHERE column1 IS NOT NULL",
    width=3,
)
_ENTRIES: Final = "SELECT entry FROM roster_entries WHERE mesh_id = ? AND seq >= ? ORDER BY seq LIMIT ?"
_MESHES: Final = "SELECT mesh_id, served, length, created_at FROM meshes ORDER BY created_at, mesh_id"
# Hex digits end at f, so every id that starts with a prefix lies before prefix ‖ g.
_BY_PREFIX: Final = "SELECT mesh_id FROM meshes WHERE mesh_id >= ?1 AND mesh_id < ?1 || 'g' LIMIT 2"
_UNSERVED: Final = "SELECT 1 FROM meshes WHERE mesh_id = ? AND NOT served AND created_at < ?"
_DELETIONS: Final = (
    "DELETE FROM mailbox WHERE recipient IN (SELECT ref FROM peers WHERE mesh_id = ?)",
    "DELETE FROM payloads WHERE sender IN (SELECT ref FROM peers WHERE mesh_id = ?)",
    "DELETE FROM subscriptions WHERE mesh_id = ?",
    "DELETE FROM peers WHERE mesh_id = ?",
    "DELETE FROM presence WHERE mesh_id = ?",
    "DELETE FROM cards WHERE mesh_id = ?",
    "DELETE FROM attestations WHERE mesh_id = ?",
    "DELETE FROM audit_log WHERE mesh_id = ?",
    "DELETE FROM roster_entries WHERE mesh_id = ?",
    "DELETE FROM meshes WHERE mesh_id = ?",
)


def append(
    connection: sqlite3.Connection,
    mesh: MeshId,
    expected_seq: int,
    entries: Sequence[bytes],
    now: UnixMillis,
    served: bool,
    head: HeadRow | None,
) -> bool:
    """Append if the last entry has `expected_seq`; otherwise do nothing and return False."""
    row = connection.execute(_LENGTH, (mesh,)).fetchone()
    length = row[0] if row else 0
    if length != expected_seq + 1:
        return False
    _INSERT.execute(connection, [(seq, mesh, entry) for seq, entry in enumerate(entries, length)])
    signed = (None, None) if head is None else (head.at, head.statement)
    connection.execute(_SAVE, (mesh, served, length + len(entries), now, *signed))
    return True


def ends(connection: sqlite3.Connection, meshes: Sequence[MeshId]) -> dict[MeshId, MeshEnd]:
    """Where meshes are now."""
    return {
        mesh: MeshEnd(Version(length, wishes), None if head is None else HeadRow(length - 1, head_at, head))
        for mesh, length, wishes, head_at, head in connection.execute(_ENDS, (json.dumps(list(meshes)),)).fetchall()
    }


def check_versions(connection: sqlite3.Connection, expected: Mapping[MeshId, Version] | None) -> None:
    """Raise `Outdated` when a mesh is at another version than the expected one."""
    if not expected:
        return
    found = ends(connection, list(expected))
    outdated = {mesh for mesh, version in expected.items() if mesh not in found or found[mesh].version != version}
    if outdated:
        raise Outdated(frozenset(outdated))


def renew_head(connection: sqlite3.Connection, mesh: MeshId, head: HeadRow, older_than: UnixMillis) -> HeadRow | None:
    """Keep a newer signature for the same length; returns what is kept."""
    connection.execute(_RENEW, (head.at, head.statement, mesh, head.seq + 1, older_than))
    end = ends(connection, [mesh]).get(mesh)
    return None if end is None else end.head


def count_wish(connection: sqlite3.Connection, mesh: MeshId) -> None:
    """The subscriptions of a mesh have changed."""
    connection.execute(_WISH, (mesh,))


def entries(connection: sqlite3.Connection, mesh: MeshId, from_seq: int, limit: int) -> list[bytes]:
    """Entries from `from_seq` on."""
    return [row[0] for row in connection.execute(_ENTRIES, (mesh, from_seq, limit)).fetchall()]


def meshes(connection: sqlite3.Connection) -> list[MeshRow]:
    """Every mesh, the oldest first."""
    return [
        MeshRow(mesh, bool(served), length, created_at)
        for mesh, served, length, created_at in connection.execute(_MESHES).fetchall()
    ]


def find(connection: sqlite3.Connection, prefix: str) -> MeshId | None:
    """The only mesh whose id starts with `prefix`."""
    found = connection.execute(_BY_PREFIX, (prefix,)).fetchall()
    return MeshId(found[0][0]) if len(found) == 1 else None


def is_unserved(connection: sqlite3.Connection, mesh: MeshId, before: UnixMillis) -> bool:
    """Whether a mesh was founded before then and is not served."""
    return connection.execute(_UNSERVED, (mesh, before)).fetchone() is not None


def delete(connection: sqlite3.Connection, mesh: MeshId) -> None:
    """Delete a mesh and all that belongs to it."""
    for statement in _DELETIONS:
        connection.execute(statement, (mesh,))
