"""Meshes and their roster entries in PostgreSQL."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from claudemesh.broker.audit import details
from claudemesh.broker.store.base import HeadRow, MeshEnd, Version
from claudemesh.broker.store.postgres.transaction import Transaction
from claudemesh.types import MeshId, PeerId, UnixMillis

ENTRIES: Final = "SELECT entry FROM roster_entries WHERE mesh_id = $1 AND seq >= $2 ORDER BY seq LIMIT $3"
MESHES: Final = "SELECT mesh_id, served, length, created_at FROM meshes WHERE length > 0 ORDER BY created_at, mesh_id"
# Hex digits end at f, so every id that starts with a prefix lies before prefix ‖ g.
BY_PREFIX: Final = """
    SELECT mesh_id FROM meshes WHERE mesh_id >= $1 AND mesh_id < $1 || 'g' AND length > 0 LIMIT 2
"""
ENDS: Final = """
    SELECT mesh_id, length, wishes, head_at, head FROM meshes WHERE mesh_id = ANY ($1::text[]) AND length > 0
"""

_SAVE: Final = """
    UPDATE meshes SET served = $2, length = $3, head_at = $4, head = $5,
        created_at = CASE length WHEN 0 THEN $6 ELSE created_at END
    WHERE mesh_id = $1
"""
_RENEW: Final = """
    UPDATE meshes SET head_at = $2, head = $3
    WHERE mesh_id = $1 AND length = $4 AND length > 0 AND (head_at IS NULL OR head_at < $5)
"""
_UNSERVED: Final = "SELECT 1 FROM meshes WHERE mesh_id = $1 AND NOT served AND created_at < $2"
_DELETIONS: Final = (
    "DELETE FROM leases WHERE recipient IN (SELECT ref FROM peers WHERE mesh_id = $1)",
    "DELETE FROM mailbox WHERE recipient IN (SELECT ref FROM peers WHERE mesh_id = $1)",
    "DELETE FROM payloads WHERE sender IN (SELECT ref FROM peers WHERE mesh_id = $1)",
    "DELETE FROM subscriptions WHERE mesh_id = $1",
    "DELETE FROM peers WHERE mesh_id = $1",
    "DELETE FROM presence WHERE mesh_id = $1",
    "DELETE FROM cards WHERE mesh_id = $1",
    "DELETE FROM attestations WHERE mesh_id = $1",
    "DELETE FROM audit_log WHERE mesh_id = $1",
    "DELETE FROM roster_entries WHERE mesh_id = $1",
    "DELETE FROM meshes WHERE mesh_id = $1",
)


class Added(NamedTuple):
    """Entries to append after the one that is expected to be the last."""

    mesh: MeshId
    expected_seq: int
    entries: Sequence[bytes]
    actor: PeerId | None
    served: bool
    head: HeadRow | None


async def append(transaction: Transaction, added: Added, now: UnixMillis) -> bool:
    """Append if the last entry has the expected number; otherwise do nothing and return False."""
    mesh, head, held = added.mesh, added.head, transaction.mesh(added.mesh)
    if held.length != added.expected_seq + 1:
        return False
    rows = [(mesh, seq, entry) for seq, entry in enumerate(added.entries, held.length)]
    await transaction.copy("roster_entries", ("mesh_id", "seq", "entry"), rows)
    held.length += len(rows)
    signed = (None, None) if head is None else (head.at, head.statement)
    await transaction.execute(_SAVE, mesh, added.served, held.length, *signed, now)
    transaction.record(mesh, "append", added.actor, None, details(count=len(rows)), now)
    return True


async def renew_head(transaction: Transaction, mesh: MeshId, head: HeadRow, older_than: UnixMillis) -> HeadRow | None:
    """Keep a newer signature for the same length; returns what is kept."""
    await transaction.execute(_RENEW, mesh, head.at, head.statement, head.seq + 1, older_than)
    end = ends_of(await transaction.fetch(ENDS, [mesh])).get(mesh)
    return None if end is None else end.head


async def is_unserved(transaction: Transaction, mesh: MeshId, before: UnixMillis) -> bool:
    """Whether a mesh was founded before then and is not served."""
    return bool(await transaction.fetch(_UNSERVED, mesh, before))


async def delete(transaction: Transaction, mesh: MeshId) -> None:
    """Delete a mesh and all that belongs to it."""
    transaction.forget(mesh)
    for statement in _DELETIONS:
        await transaction.execute(statement, mesh)


def ends_of(rows: Sequence[Any]) -> dict[MeshId, MeshEnd]:
    """What rows of `ENDS` say."""
    return {
        mesh: MeshEnd(Version(length, wishes), None if head is None else HeadRow(length - 1, head_at, head))
        for mesh, length, wishes, head_at, head in rows
    }
