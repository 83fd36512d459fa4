"""How a peer checks the broker's audit log (docs/spec/audit.md §4).

A broker can leave out what it never acknowledged. It cannot change or take back what it did: rows are chained,
their end is signed, and each `accepted` that a peer holds names a row and its hash.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from claudemesh.crypto import statements
from claudemesh.crypto.statements import Body, Statement
from claudemesh.errors import AuditConflict, Malformed
from claudemesh.protocol.audit_rows import CHECKPOINT_FIELDS, METADATA_FIELDS, ROW_FIELDS, row_hash
from claudemesh.types import ZERO_DIGEST, BrokerId, Digest, MeshId

MAX_ROW_BYTES: Final = 1_024

_FINGERPRINT: Final = re.compile(r"([0-9a-f]{16})?\Z")


class AuditView(NamedTuple):
    """How far a mesh's audit log was verified: its number of rows, its head, and the checkpoint that signs them."""

    n: int = 0
    head: Digest = ZERO_DIGEST
    checkpoint: Statement | None = None


def verify(
    view: AuditView,
    rows: Sequence[str],
    checkpoint: Statement,
    receipts: Mapping[int, str],
    *,
    mesh: MeshId,
    broker: BrokerId,
) -> AuditView:
    """Check that the audit log continues what was verified before, and return the new view.

    Args:
        rows: Every row from number `view.n` on, as the broker sent it.
        checkpoint: The broker's signed statement of where the log ends.
        receipts: Hashes by row number that this peer holds signed by the broker and that `view` does not cover.
        broker: The broker's key, from the verified roster.

    Raises:
        AuditConflict: `audit_chain` a row does not link up; `audit_checkpoint` the end is not the signed one;
            `audit_receipt` a row is not the one acknowledged; `audit_truncated` the log ends before what was
            verified or acknowledged. With the view, the receipts and the checkpoint it is proof against the broker.
        Malformed: A row or the checkpoint has a field that the closed list has not, or another mesh's.
        BadSignature: The checkpoint is not signed by the broker.
    """
    end = open_checkpoint(checkpoint, mesh, broker)
    if end["n"] < view.n or any(n >= end["n"] for n in receipts):
        raise AuditConflict("audit_truncated", f"it ends at {end['n']}")
    n, head = view.n, view.head
    for text in rows:
        raw = statements.text_bytes(text)
        read_row(raw, mesh, n, head)
        head = row_hash(raw)
        if receipts.get(n, head) != head:
            raise AuditConflict("audit_receipt", f"row {n}")
        n += 1
    if (end["n"], end["head"]) != (n, head):
        raise AuditConflict("audit_checkpoint", f"{n} rows, signed {end['n']}")
    return AuditView(n, head, checkpoint)


def open_checkpoint(checkpoint: Statement, mesh: MeshId, broker: BrokerId) -> Body:
    """Verify a checkpoint of this mesh: `at`, `head` and `n` (how many rows).

    Raises:
        Malformed: Another signer, mesh or field set.
        BadSignature: The signature does not match.
    """
    body = statements.open_statement(checkpoint, "audit-cp", broker)
    statements.check_fields(body, CHECKPOINT_FIELDS)
    if body["mesh"] != mesh:
        raise Malformed("stmt", "a checkpoint of another mesh")
    return body


def read_row(raw: bytes, mesh: MeshId, n: int, previous: Digest) -> Body:
    """Check that a row has exactly the allowed fields and follows row `n` − 1, whose hash is `previous`."""
    body = statements.decode(raw, MAX_ROW_BYTES)
    statements.check_fields(body, ROW_FIELDS)
    statements.check_fields(body["metadata"], {}, METADATA_FIELDS)
    for name in ("actor_peer_id", "target_peer_id"):
        if not _FINGERPRINT.match(body[name]):
            raise Malformed("field_type", name)
    if body["mesh_id"] != mesh:
        raise Malformed("stmt", "an audit row of another mesh")
    if body["id"] != n or body["prev_hash"] != previous:
        raise AuditConflict("audit_chain", f"row {n}")
    return body
