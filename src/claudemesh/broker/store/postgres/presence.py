"""Presence in PostgreSQL: the sessions that are connected, and when each peer was last heard from."""

from collections.abc import Sequence
from typing import Any, Final

from claudemesh.broker.store.base import LinkId, SessionRow
from claudemesh.broker.store.postgres.transaction import Transaction
from claudemesh.types import MeshId, PeerId, SessionId, UnixMillis

OF_MESH: Final = """
    SELECT mesh_id, peer_id, session_id, sid, pid, cwd, status, connected_at, last_seen, link FROM presence
    WHERE mesh_id = $1 ORDER BY peer_id, connected_at, session_id
"""
LAST_SEEN: Final = """
    SELECT peer_id, max(last_seen) FROM (
        SELECT peer_id, last_seen FROM peers WHERE mesh_id = $1 AND last_seen > 0
        UNION ALL SELECT peer_id, last_seen FROM presence WHERE mesh_id = $1
    ) seen GROUP BY peer_id
"""

_SET: Final = """
    INSERT INTO presence (mesh_id, peer_id, session_id, sid, pid, cwd, status, connected_at, last_seen, link)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[],
        $8::bigint[], $9::bigint[], $10::bigint[])
    ON CONFLICT (mesh_id, peer_id, session_id) DO UPDATE
    SET sid = excluded.sid, pid = excluded.pid, cwd = excluded.cwd, status = excluded.status,
        connected_at = excluded.connected_at, last_seen = excluded.last_seen, link = excluded.link
"""
_LINK_OF: Final = "SELECT link FROM presence WHERE mesh_id = $1 AND peer_id = $2 AND session_id = $3"
_SET_STATUSES: Final = """
    UPDATE presence p SET status = k.status
    FROM unnest($1::bigint[], $2::text[], $3::text[]) k (link, session_id, status)
    WHERE p.link = k.link AND p.session_id = k.session_id
"""
_TOUCH: Final = "UPDATE presence SET last_seen = $2 WHERE link = ANY ($1::bigint[])"
_REMOVE_SESSION: Final = """
    DELETE FROM presence WHERE mesh_id = $1 AND peer_id = $2 AND session_id = $3
    RETURNING mesh_id, peer_id, session_id, sid, pid, cwd, status, connected_at, last_seen, link
"""
_REMOVE_LINKS: Final = """
    DELETE FROM presence WHERE link >= $1 AND link < $2
    RETURNING mesh_id, peer_id, session_id, sid, pid, cwd, status, connected_at, last_seen, link
"""
_REMOVE_BEFORE: Final = """
    DELETE FROM presence WHERE last_seen < $1
    RETURNING mesh_id, peer_id, session_id, sid, pid, cwd, status, connected_at, last_seen, link
"""
_KEEP_LAST_SEEN: Final = """
    INSERT INTO peers (mesh_id, peer_id, last_seen)
    SELECT mesh_id, peer_id, max(last_seen)
    FROM unnest($1::text[], $2::text[], $3::bigint[]) k (mesh_id, peer_id, last_seen)
    GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (mesh_id, peer_id) DO UPDATE SET last_seen = greatest(peers.last_seen, excluded.last_seen)
"""
_ARRIVE: Final = """
    INSERT INTO peers (mesh_id, peer_id, present) VALUES ($1, $2, true)
    ON CONFLICT (mesh_id, peer_id) DO UPDATE SET present = true WHERE NOT peers.present
"""
_DEPART: Final = "UPDATE peers SET present = false WHERE mesh_id = $1 AND peer_id = $2 AND present"
_DEPART_ABSENT: Final = """
    UPDATE peers SET present = false WHERE ref IN (
        SELECT ref FROM peers p
        WHERE present AND last_seen < $1
            AND NOT EXISTS (SELECT FROM presence s WHERE s.mesh_id = p.mesh_id AND s.peer_id = p.peer_id)
        LIMIT $2 FOR UPDATE SKIP LOCKED
    ) RETURNING mesh_id, peer_id
"""


async def announce(transaction: Transaction, sessions: Sequence[SessionRow]) -> None:
    """Announce sessions, or replace what was announced; in one order, whoever does so at the same time."""
    newest = {(s.mesh, s.peer, s.session): s for s in sessions}
    if newest:
        rows = [
            (*key, _text(s.sid), s.pid, _text(s.cwd), s.status, s.connected_at, s.last_seen, s.link)
            for key, s in sorted(newest.items())
        ]
        await transaction.execute(_SET, *map(list, zip(*rows, strict=True)))


async def take_over(transaction: Transaction, session: SessionRow) -> LinkId | None:
    """Announce a session; returns the other link that had it. Its mesh is held, so nobody else does so at once."""
    found = await transaction.fetch(_LINK_OF, session.mesh, session.peer, session.session)
    await announce(transaction, [session])
    # Whoever looks for absent peers waits for this row, and then finds that this one was heard from.
    await _keep_last_seen(transaction, [session])
    return next((link for (link,) in found if link != session.link), None)


async def set_statuses(transaction: Transaction, statuses: Sequence[tuple[LinkId, SessionId, str]]) -> None:
    """Change what sessions say of themselves."""
    if statuses:
        await transaction.execute(_SET_STATUSES, *map(list, zip(*statuses, strict=True)))


async def arrive(transaction: Transaction, mesh: MeshId, peer: PeerId) -> bool:
    """A peer is present; returns whether it was not before."""
    return await transaction.execute(_ARRIVE, mesh, peer) == 1


async def depart(transaction: Transaction, mesh: MeshId, peer: PeerId) -> bool:
    """A peer is absent; returns whether it was present."""
    return await transaction.execute(_DEPART, mesh, peer) == 1


async def depart_absent(transaction: Transaction, before: UnixMillis, limit: int) -> list[tuple[MeshId, PeerId]]:
    """Peers that have no session, and were not heard from since, are absent."""
    return [(mesh, peer) for mesh, peer in await transaction.fetch(_DEPART_ABSENT, before, limit)]


async def touch(transaction: Transaction, links: Sequence[LinkId], now: UnixMillis) -> None:
    """Renew every session of these links."""
    await transaction.execute(_TOUCH, list(links), now)


async def end_session(transaction: Transaction, mesh: MeshId, peer: PeerId, session: SessionId) -> None:
    """Remove one session."""
    await _removed(transaction, await transaction.fetch(_REMOVE_SESSION, mesh, peer, session))


async def clear_links(transaction: Transaction, first: LinkId, end: LinkId) -> None:
    """Remove the sessions of links with a number from `first` to before `end`."""
    await _removed(transaction, await transaction.fetch(_REMOVE_LINKS, first, end))


async def expire(transaction: Transaction, before: UnixMillis) -> list[SessionRow]:
    """Remove the sessions last seen before `before`."""
    gone = await _removed(transaction, await transaction.fetch(_REMOVE_BEFORE, before))
    return sorted(gone, key=lambda row: row.last_seen)


def sessions_of(rows: Sequence[Any]) -> list[SessionRow]:
    """What rows of `OF_MESH` say."""
    return [
        SessionRow(
            mesh=mesh,
            peer=peer,
            session=session,
            sid=sid,
            pid=pid,
            cwd=cwd,
            status=status,
            connected_at=connected_at,
            last_seen=seen,
            link=link,
        )
        for mesh, peer, session, sid, pid, cwd, status, connected_at, seen, link in rows
    ]


async def _removed(transaction: Transaction, rows: Sequence[Any]) -> list[SessionRow]:
    sessions = sessions_of(rows)
    await _keep_last_seen(transaction, sessions)
    return sessions


async def _keep_last_seen(transaction: Transaction, sessions: Sequence[SessionRow]) -> None:
    if sessions:
        columns = zip(*((row.mesh, row.peer, row.last_seen) for row in sessions), strict=True)
        await transaction.execute(_KEEP_LAST_SEEN, *map(list, columns))


def _text(label: str) -> str:
    """A label of a peer as PostgreSQL can hold it: it has no character for code 0."""
    return label.replace("\0", "\ufffd")
