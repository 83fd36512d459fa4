"""Rows of the timeline: what is known of a sent message, by whom, and the signed bytes that prove it."""

import sqlite3
from typing import Final, NamedTuple

from claudemesh.protocol.delivery import Claim, Stage, Witness, advance, is_admissible
from claudemesh.types import ChannelId, MeshId, MessageId, PeerId, UnixMillis

_COPIES: Final = (
    (
        "SELECT stage, witness FROM outbox WHERE mesh = ? AND message_id = ? AND peer = ?",
        "UPDATE outbox SET stage = ?, witness = ? WHERE mesh = ? AND message_id = ? AND peer = ?",
    ),
    (
        "SELECT stage, witness FROM posts WHERE mesh = ? AND message_id = ? AND channel = ?",
        "UPDATE posts SET stage = ?, witness = ? WHERE mesh = ? AND message_id = ? AND channel = ?",
    ),
    (
        "SELECT stage, witness FROM post_recipients WHERE mesh = ? AND message_id = ? AND peer = ?",
        "UPDATE post_recipients SET stage = ?, witness = ? WHERE mesh = ? AND message_id = ? AND peer = ?",
    ),
)
"""Where a message has a row for its recipient: sent to a peer, posted to a channel, read by a member of the channel."""
_ROW: Final = (
    "SELECT stage, witness FROM outbox WHERE id = ?",
    "UPDATE outbox SET stage = ?, witness = ? WHERE id = ?",
)


class Evidence(NamedTuple):
    """Signed bytes: a broker's statement (`statement`), or a session's frame (`frame`) and its attestation."""

    kind: str
    content: bytes
    signature: bytes
    attestation: str = ""


class Recorded(NamedTuple):
    """A claim that was new."""

    message_id: MessageId
    peer: PeerId | ChannelId
    claim: Claim
    shown: Claim
    """What is shown of the message now."""


class TimelineRow(NamedTuple):
    """One stage of one message at one peer."""

    peer: PeerId | ChannelId
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
    peer: PeerId | ChannelId,
    claim: Claim,
    *,
    at: UnixMillis,
    recorded_at: UnixMillis,
    signer: str,
    detail: str = "",
    evidence: int | None = None,
    outbox_row: int | None = None,
) -> Recorded | None:
    """Record a claim about a message that this peer sent to `peer`; for a post, `peer` may be the channel itself.

    Args:
        outbox_row: The row of a direct message, where it is known: found sooner than by three keys.

    Returns:
        None when the claim is not admissible, not about a message of ours to that peer, or known.
    """
    if not is_admissible(claim):
        return None
    found = _find_copy(connection, outbox_row, mesh, message_id, peer)
    if found is None:
        return None
    update, key, before = found
    inserted = connection.execute(
        "INSERT OR IGNORE INTO timeline"
        " (mesh, message_id, peer, stage, witness, at, recorded_at, signer, detail, evidence)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (mesh, message_id, peer, claim.stage, claim.witness, at, recorded_at, signer, detail, evidence),
    )
    if inserted.rowcount == 0:
        return None
    shown = advance(before, claim) or before
    if shown != before:
        connection.execute(update, (shown.stage, shown.witness, *key))
    return Recorded(message_id, peer, claim, shown)


def load(connection: sqlite3.Connection, mesh: MeshId, message_id: str) -> list[TimelineRow]:
    """Everything recorded about a message, in the order in which it was learnt."""
    rows = connection.execute(
        "SELECT peer, stage, witness, at, recorded_at, signer, detail, evidence FROM timeline"
        " WHERE mesh = ? AND message_id = ? ORDER BY recorded_at, at",
        (mesh, message_id),
    )
    return [TimelineRow(row[0], Stage(row[1]), Witness(row[2]), *row[3:]) for row in rows]


def _find_copy(
    connection: sqlite3.Connection,
    outbox_row: int | None,
    mesh: MeshId,
    message_id: MessageId,
    peer: PeerId | ChannelId,
) -> tuple[str, tuple[object, ...], Claim] | None:
    """What is shown of a message at one of those it was sent to, and the statement that changes it, with its key."""
    key: tuple[object, ...]
    copies, key = (_COPIES, (mesh, message_id, peer)) if outbox_row is None else ((_ROW,), (outbox_row,))
    for select, update in copies:
        row = connection.execute(select, key).fetchone()
        if row is not None:
            return update, key, Claim(Stage(row[0]), Witness(row[1]))
    return None
