"""Rows of heads that peers named, of freezes that a person resolved, and of peers on a branch decided against."""

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from claudemesh.crypto.statements import Statement
from claudemesh.protocol.heads import SignedHead
from claudemesh.types import Digest, MeshId, PeerId, UnixMillis


class Decision(NamedTuple):
    """How a person resolved a freeze; the proof stays."""

    code: str
    frozen_at: UnixMillis
    proof: list[Statement]
    trusted: Digest
    seq: int
    decided_at: UnixMillis


def save_claim(connection: sqlite3.Connection, mesh: MeshId, member: PeerId, claim: SignedHead, at: UnixMillis) -> None:
    """Remember the head that a peer named in a message that froze the mesh."""
    connection.execute(
        "INSERT INTO head_claims (mesh, member, seq, head, signed_at, signature, seen_at) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (mesh, member) DO UPDATE SET seq = excluded.seq, head = excluded.head,"
        " signed_at = excluded.signed_at, signature = excluded.signature, seen_at = excluded.seen_at",
        (mesh, member, claim.seq, claim.head, claim.at, claim.signature, at),
    )


def load_claims(connection: sqlite3.Connection, mesh: MeshId) -> dict[PeerId, SignedHead]:
    """The head that each such peer named last."""
    rows = connection.execute(
        "SELECT member, seq, head, signed_at, signature FROM head_claims WHERE mesh = ? ORDER BY seen_at", (mesh,)
    )
    return {row[0]: SignedHead(mesh, row[1], row[2], row[3], row[4]) for row in rows}


def load_newest_frames(connection: sqlite3.Connection, mesh: MeshId) -> dict[PeerId, bytes]:
    """The newest received message of each peer, as it was signed: its header names the peer's head."""
    rows = connection.execute(
        "SELECT sender, frame FROM inbox WHERE id IN (SELECT max(id) FROM inbox WHERE mesh = ? GROUP BY sender)",
        (mesh,),
    )
    return dict(rows.fetchall())


def resolve_freeze(
    connection: sqlite3.Connection, mesh: MeshId, trusted: Digest, seq: int, rejected: Iterable[PeerId], now: UnixMillis
) -> None:
    """End a freeze by a person's decision; its proof is kept with the decision."""
    connection.execute(
        "INSERT INTO freeze_decisions (mesh, code, frozen_at, proof, trusted, seq, decided_at)"
        " SELECT mesh, code, frozen_at, proof, ?, ?, ? FROM freezes WHERE mesh = ?",
        (trusted, seq, now, mesh),
    )
    connection.execute("DELETE FROM freezes WHERE mesh = ?", (mesh,))
    connection.execute("DELETE FROM rejected_peers WHERE mesh = ?", (mesh,))
    connection.executemany(
        "INSERT INTO rejected_peers (mesh, member, decided_at) VALUES (?, ?, ?)",
        [(mesh, peer, now) for peer in rejected],
    )


def load_rejected(connection: sqlite3.Connection, mesh: MeshId) -> set[PeerId]:
    """The peers whose branch was decided against."""
    return {row[0] for row in connection.execute("SELECT member FROM rejected_peers WHERE mesh = ?", (mesh,))}


def load_decisions(connection: sqlite3.Connection, mesh: MeshId) -> list[Decision]:
    """Every freeze that a person resolved, the oldest first."""
    rows = connection.execute(
        "SELECT code, frozen_at, proof, trusted, seq, decided_at FROM freeze_decisions WHERE mesh = ? ORDER BY id",
        (mesh,),
    )
    return [
        Decision(row[0], row[1], msgspec.json.decode(row[2], type=list[Statement]), row[3], row[4], row[5])
        for row in rows
    ]
