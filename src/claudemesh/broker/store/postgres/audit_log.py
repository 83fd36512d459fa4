"""The audit log in PostgreSQL, as its readers see it; `Transaction.record` writes it."""

from collections.abc import Sequence
from typing import Final

import msgspec

from claudemesh.broker.audit import details
from claudemesh.broker.store.base import AuditEvent
from claudemesh.broker.store.postgres.transaction import Transaction
from claudemesh.protocol.audit_rows import AuditRow, Metadata, encode_json
from claudemesh.types import MeshId, UnixMillis

ROWS: Final = """
    SELECT actor_peer_id, created_at, event_type, id, metadata, prev_hash, target_peer_id
    FROM audit_log WHERE mesh_id = $1 AND id >= $2 ORDER BY id LIMIT $3
"""
HEAD: Final = "SELECT audit_n, audit_head FROM meshes WHERE mesh_id = $1"

_METADATA: Final = msgspec.json.Decoder(Metadata)


async def record(transaction: Transaction, events: Sequence[AuditEvent], now: UnixMillis) -> None:
    """Append events to the chains of their meshes."""
    for event in events:
        told = details(count=event.count, priority=event.priority, reason=event.reason)
        transaction.record(event.mesh, event.event_type, event.actor, event.target, told, now)


def canonical(mesh: MeshId, row: tuple[str, ...]) -> str:
    """A row of `ROWS` as the canonical JSON that was hashed."""
    actor, created_at, event_type, n, metadata, previous, target = row
    return encode_json(
        AuditRow(actor, created_at, event_type, n, mesh, _METADATA.decode(metadata), previous, target)  # type: ignore[arg-type]
    ).decode()
