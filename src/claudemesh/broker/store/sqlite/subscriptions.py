"""Who wants the posts of which channel, where that is not the rule."""

import sqlite3
from typing import Final

from claudemesh.broker.store.base import Subscription
from claudemesh.broker.store.sqlite.rosters import count_wish
from claudemesh.types import ChannelId, MeshId, PeerId

_KEEP: Final = """
    INSERT INTO subscriptions (mesh_id, peer_id, channel, wanted) VALUES (?, ?, ?, ?)
    ON CONFLICT (mesh_id, peer_id, channel) DO UPDATE SET wanted = excluded.wanted
"""
_FORGET: Final = "DELETE FROM subscriptions WHERE mesh_id = ? AND peer_id = ? AND channel = ?"
_ALL: Final = "SELECT channel, peer_id, wanted FROM subscriptions WHERE mesh_id = ?"


def keep(connection: sqlite3.Connection, mesh: MeshId, channel: ChannelId, peer: PeerId, wanted: bool | None) -> None:
    """Keep what a peer wants; None forgets it."""
    if wanted is None:
        connection.execute(_FORGET, (mesh, peer, channel))
    else:
        connection.execute(_KEEP, (mesh, peer, channel, wanted))
    count_wish(connection, mesh)


def of_mesh(connection: sqlite3.Connection, mesh: MeshId) -> list[Subscription]:
    """Everything that is kept of a mesh."""
    return [Subscription(channel, peer, bool(wanted)) for channel, peer, wanted in connection.execute(_ALL, (mesh,))]
