"""Cards and attestations in PostgreSQL: signed public statements that the broker hands on."""

from typing import Final

from claudemesh.broker.store.postgres.transaction import Transaction
from claudemesh.protocol import limits
from claudemesh.types import MeshId, PeerId, UnixMillis

CARDS: Final = "SELECT member, statement FROM cards WHERE mesh_id = $1 AND member = ANY ($2::text[])"
ATTESTATIONS: Final = "SELECT digest, statement FROM attestations WHERE digest = ANY ($1::text[])"
OF_SESSIONS: Final = """
    SELECT session_id, statement FROM attestations WHERE mesh_id = $1 AND session_id = ANY ($2::text[])
    ORDER BY expires_at
"""
PUT_ATTESTATION: Final = """
    INSERT INTO attestations (digest, mesh_id, member, session_id, expires_at, statement)
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING
"""

_PUT_CARD: Final = """
    INSERT INTO cards (mesh_id, member, number, statement) VALUES ($1, $2, $3, $4)
    ON CONFLICT (mesh_id, member) DO UPDATE SET number = excluded.number, statement = excluded.statement
    WHERE excluded.number > cards.number
"""
_EXPIRE: Final = "DELETE FROM attestations WHERE expires_at < $1"


async def put_card(transaction: Transaction, mesh: MeshId, member: PeerId, number: int, card: bytes) -> bool:
    """Keep a card whose number is higher than the one kept."""
    return await transaction.execute(_PUT_CARD, mesh, member, number, card) == 1


async def expire_attestations(transaction: Transaction, now: UnixMillis) -> int:
    """Delete attestations that no queued envelope can name any more."""
    return await transaction.execute(_EXPIRE, now - limits.QUEUE_LIFETIME_MS)
