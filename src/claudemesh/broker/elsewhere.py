"""Sessions whose links other nodes hold, for a listing of peers (docs/spec/cluster.md §5)."""

from collections.abc import Sequence
from typing import cast

from claudemesh.broker.directory import Mesh, decode_statement
from claudemesh.broker.store.base import SessionRow, Store
from claudemesh.protocol.messages import PeerPresence, SessionPresence, Status
from claudemesh.types import PeerId, SessionId


async def with_other_nodes(store: Store, mesh: Mesh, listing: Sequence[PeerPresence]) -> list[PeerPresence]:
    """Add to what this node knows what the store has of the others.

    Args:
        listing: The peers of the mesh with the sessions of this node's links.

    Raises:
        LocalError: The store fails.
    """
    rows = [row for row in await store.presence(mesh.id) if row.link not in mesh.links]
    attestations = await store.session_attestations(mesh.id, [row.session for row in rows])
    peers = {peer.member: peer for peer in listing}
    elsewhere: dict[PeerId, list[SessionPresence]] = {}
    for row in rows:
        raw = attestations.get(row.session)
        if raw is not None:
            elsewhere.setdefault(row.peer, []).append(_session(row, raw))
    for member, sessions in elsewhere.items():
        known = peers.get(member, PeerPresence(member=member))
        moved: set[SessionId] = {session.sess for session in sessions}
        here = [session for session in known.sessions if session.sess not in moved]
        seen = max(known.seen, *(row.last_seen for row in rows if row.peer == member))
        peers[member] = PeerPresence(member=member, seen=seen, sessions=here + sessions)
    return list(peers.values())


def _session(row: SessionRow, attestation: bytes) -> SessionPresence:
    return SessionPresence(
        sess=row.session,
        att=decode_statement(attestation),
        status=cast(Status, row.status),
        sid=row.sid,
        since=row.connected_at,
    )
