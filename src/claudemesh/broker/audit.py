"""The audit log as the broker writes it: a hash chain per mesh, and signed checkpoints (docs/spec/audit.md).

The store reads and advances a chain inside the transaction that records the event itself.
"""

from functools import lru_cache
from typing import NamedTuple

from claudemesh.crypto import statements
from claudemesh.crypto.primitives import SigningKey
from claudemesh.crypto.statements import Statement
from claudemesh.protocol.audit_rows import AuditRow, EventType, Metadata, Reason, encode_json, fingerprint, row_hash
from claudemesh.types import ZERO_DIGEST, Digest, MeshId, PeerId, Priority, UnixMillis


class Record(NamedTuple):
    """One row as the table holds it, column by column."""

    id: int
    mesh_id: MeshId
    event_type: EventType
    actor_peer_id: str
    target_peer_id: str
    metadata: str
    created_at: UnixMillis
    prev_hash: Digest
    hash: Digest


class Details(NamedTuple):
    """The metadata of an event, for the row and as its text."""

    metadata: Metadata
    text: str


class Chain:
    """Where the audit log of one mesh ends: `n` rows, and the hash of the last."""

    __slots__ = ("head", "mesh", "n")

    def __init__(self, mesh: MeshId, n: int = 0, head: Digest = ZERO_DIGEST) -> None:
        self.mesh = mesh
        self.n = n
        self.head = head

    def add(
        self, event_type: EventType, actor: PeerId | None, target: PeerId | None, details: Details, now: UnixMillis
    ) -> Record:
        """Append one event; returns the row to store with it."""
        n, previous, who, whom = self.n, self.head, fingerprint(actor), fingerprint(target)
        raw = encode_json(AuditRow(who, now, event_type, n, self.mesh, details.metadata, previous, whom))
        self.n, self.head = n + 1, row_hash(raw)
        return Record(n, self.mesh, event_type, who, whom, details.text, now, previous, self.head)


@lru_cache(maxsize=4_096)
def details(
    *,
    count: int | None = None,
    priority: Priority | None = None,
    reason: Reason | None = None,
    size_class: int | None = None,
) -> Details:
    """What a row says about its event; everything is optional, and there is nothing else to say."""
    metadata = Metadata(count, priority, reason, size_class)
    return Details(metadata, encode_json(metadata).decode())


def checkpoint(mesh: MeshId, n: int, head: Digest, now: UnixMillis, key: SigningKey) -> Statement:
    """Sign that the audit log of `mesh` has `n` rows that end in `head`."""
    return statements.sign_statement({"at": now, "head": head, "mesh": mesh, "n": n, "v": 1}, "audit-cp", key)
