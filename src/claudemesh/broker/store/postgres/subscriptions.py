"""Who wants the posts of which channel, where that is not the rule."""

from typing import Final

from claudemesh.broker.store.postgres.transaction import Transaction
from claudemesh.types import ChannelId, MeshId, PeerId

ALL: Final = "SELECT channel, peer_id, wanted FROM subscriptions WHERE mesh_id = $1"

_KEEP: Final = """
    INSERT INTO subscriptions (mesh_id, peer_id, channel, wanted) VALUES ($1, $2, $3, $4)
    ON CONFLICT (mesh_id, peer_id, channel) DO UPDATE SET wanted = excluded.wanted
"""
_FORGET: Final = "DELETE FROM subscriptions WHERE mesh_id = $1 AND peer_id = $2 AND channel = $3"


async def keep(transaction: Transaction, mesh: MeshId, channel: ChannelId, peer: PeerId, wanted: bool | None) -> None:
    """Keep what a peer wants; None forgets it."""
    if wanted is None:
        await transaction.execute(_FORGET, mesh, peer, channel)
    else:
        await transaction.execute(_KEEP, mesh, peer, channel, wanted)
    transaction.mesh(mesh).count_wish()
