"""Cards and attestations in SQLite: signed public statements that the broker hands on."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Final

from claudemesh.protocol import limits
from claudemesh.types import Digest, MeshId, PeerId, SessionId, UnixMillis

_PUT_CARD: Final = """
    INSERT INTO cards (mesh_id, member, number, statement) VALUES (?, ?, ?, ?)
    ON CONFLICT (mesh_id, member) DO UPDATE SET number = excluded.number, statement = excluded.statement
    WHERE excluded.number > cards.number
"""
_CARDS: Final = """
    SELECT member, statement FROM cards WHERE mesh_id = ? AND member IN (SELECT value FROM json_each(?))
"""
_PUT_ATTESTATION: Final = """
    INSERT OR IGNORE INTO attestations (digest, mesh_id, member, expires_at, statement, session_id)
    VALUES (?, ?, ?, ?, ?, ?)
"""
_OF_SESSIONS: Final = """
    SELECT session_id, statement FROM attestations
    WHERE mesh_id = ? AND session_id IN (SELECT value FROM json_each(?)) ORDER BY expires_at
"""
_ATTESTATIONS: Final = "SELECT digest, statement FROM attestations WHERE digest IN (SELECT value FROM json_each(?))"
_EXPIRE: Final = "DELETE FROM attestations WHERE expires_at < ?"


def put_card(connection: sqlite3.Connection, mesh: MeshId, member: PeerId, number: int, card: bytes) -> bool:
    """Keep a card whose number is higher than the one kept."""
    return connection.execute(_PUT_CARD, (mesh, member, number, card)).rowcount == 1


def cards(connection: sqlite3.Connection, mesh: MeshId, members: Sequence[PeerId]) -> dict[PeerId, bytes]:
    """The newest card of each member that has one."""
    return dict(connection.execute(_CARDS, (mesh, json.dumps(list(members)))).fetchall())


def put_attestation(
    connection: sqlite3.Connection,
    mesh: MeshId,
    member: PeerId,
    digest: Digest,
    expires_at: UnixMillis,
    statement: bytes,
    session: SessionId,
) -> None:
    """Keep an attestation."""
    connection.execute(_PUT_ATTESTATION, (digest, mesh, member, expires_at, statement, session))


def session_attestations(
    connection: sqlite3.Connection, mesh: MeshId, sessions: Sequence[SessionId]
) -> dict[SessionId, bytes]:
    """Of each session the attestation that ends last."""
    return dict(connection.execute(_OF_SESSIONS, (mesh, json.dumps(list(sessions)))).fetchall())


def attestations(connection: sqlite3.Connection, digests: Sequence[Digest]) -> dict[Digest, bytes]:
    """Those of `digests` that are kept."""
    return dict(connection.execute(_ATTESTATIONS, (json.dumps(list(digests)),)).fetchall())


def expire_attestations(connection: sqlite3.Connection, now: UnixMillis) -> int:
    """Delete attestations that no queued envelope can name any more."""
    return connection.execute(_EXPIRE, (now - limits.QUEUE_LIFETIME_MS,)).rowcount
