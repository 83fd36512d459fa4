"""Rows of the timeline: what is known of a sent message, by whom, and the signed bytes that prove it."""

import sqlite3
from typing import NamedTuple

from claudemesh.protocol.delivery import Claim, Stage, Witness, advance, is_admissible
from claudemesh.types import MeshId, MessageId, PeerId, UnixMillis


class Evidence(NamedTuple):
    """Signed bytes: a broker's statement (`statement`), or a session's frame (`frame`) and its attestation."""

    kind: str
    content: bytes
    signature: bytes
    attestation: str = ""


class Recorded(NamedTuple):
    """A claim that was new."""

    message_id: MessageId
    peer: PeerId
    claim: Claim
    shown: Claim
    """What is shown of the message now."""


class TimelineRow(NamedTuple):
    """One stage of one message at one peer."""

    peer: PeerId
    stage: Stage
    witness: Witness
    at: UnixMillis
    recorded_at: UnixMillis
    signer: str
    detail: str
    evidence: int | None


def add_evidence(connection: sqlite3.Connection, evidence: Evidence) -> int:
    """Store signed bytes once; several rows may name them."""
    cursor = connection.execute(
        "INSERT INTO evidence (kind, content, signature, attestation) VALUES (?, ?, ?, ?)", evidence
    )
    return cursor.lastrowid or 0


def load_evidence(connection: sqlite3.Connection, evidence: int) -> Evidence | None:
    """The signed bytes of a row."""
    row = connection.execute(
        "SELECT kind, content, signature, attestation FROM evidence WHERE id = ?", (evidence,)
    ).fetchone()
    return None if row is None else Evidence(*row)


def record(
    connection: sqlite3.Connection,
    mesh: MeshId,
    message_id: MessageId,
    peer: PeerId,
    claim: Claim,
    *,
    at: UnixMillis,
    recorded_at: UnixMillis,
    signer: str,
    detail: str = "",
    evidence: int | None = None,
) -> Recorded | None:
    """Record a claim about a message that this peer sent to `peer`.

    Returns:
        None when the claim is not admissible, not about a message of ours to that peer, or known.
    """
    if not is_admissible(claim):
        return None
    row = connection.execute(
        "SELECT id, stage, witness FROM outbox WHERE mesh = ? AND message_id = ? AND peer = ?", (mesh, message_id, peer)
    ).fetchone()
    if row is None:
        return None
    inserted = connection.execute(
        "INSERT OR IGNORE INTO timeline"
        " (mesh, message_id, peer, stage, witness, at, recorded_at, signer, detail, evidence)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (mesh, message_id, peer, claim.stage, claim.witness, at, recorded_at, signer, detail, evidence),
    )
    if inserted.rowcount == 0:
        return None
    before = Claim(Stage(row[1]), Witness(row[2]))
    shown = advance(before, claim) or before
    if shown != before:
        connection.execute(
            "UPDATE outbox SET stage = ?, witness = ? WHERE id = ?", (shown.stage, shown.witness, row[0])
        )
    return Recorded(message_id, peer, claim, shown)


def load(connection: sqlite3.Connection, mesh: MeshId, message_id: str) -> list[TimelineRow]:
    """Everything recorded about a message, in the order in which it was learnt."""
    rows = connection.execute(
        "SELECT peer, stage, witness, at, recorded_at, signer, detail, evidence FROM timeline"
        " WHERE mesh = ? AND message_id = ? ORDER BY recorded_at, at",
        (mesh, message_id),
    )
    return [TimelineRow(row[0], Stage(row[1]), Witness(row[2]), *row[3:]) for row in rows]
