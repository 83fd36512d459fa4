"""Presence in SQLite: the sessions that are connected, and when each peer was last heard from."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from claudemesh.broker.store.base import LinkId, SessionRow
from claudemesh.broker.store.sqlite.addresses import Addresses
from claudemesh.broker.store.sqlite.many_rows import ManyRows
from claudemesh.types import MeshId, PeerId, SessionId, UnixMillis

_SET: Final = ManyRows(
    "INSERT OR REPLACE INTO presence"
    " (mesh_id, peer_id, session_id, sid, pid, cwd, status, connected_at, last_seen, link)"
    " SELECT * FROM (VALUES :rows) WHERE column1 IS NOT NULL",
    width=10,
)
_TOUCH: Final = "UPDATE presence SET last_seen = ? WHERE link IN (SELECT value FROM json_each(?))"
_SELECT: Final = """
    SELECT mesh_id, peer_id, session_id, sid, pid, cwd, status, connected_at, last_seen, link FROM presence
"""
_OF_SESSION: Final = _SELECT + "WHERE mesh_id = ? AND peer_id = ? AND session_id = ?"
_OF_LINK: Final = _SELECT + "WHERE link = ?"
_OF_LINKS: Final = _SELECT + "WHERE link >= ? AND link < ?"
_OF_MESH: Final = _SELECT + "WHERE mesh_id = ? ORDER BY peer_id, connected_at, session_id"
_BEFORE: Final = _SELECT + "WHERE last_seen < ? ORDER BY last_seen"
_DELETE: Final = "DELETE FROM presence WHERE mesh_id = ? AND peer_id = ? AND session_id = ?"
_LAST_SEEN: Final = """
    SELECT peer_id, max(last_seen) FROM (
        SELECT peer_id, last_seen FROM peers WHERE mesh_id = ?1 AND last_seen > 0
        UNION ALL SELECT peer_id, last_seen FROM presence WHERE mesh_id = ?1
    ) GROUP BY peer_id
"""
_KEEP_LAST_SEEN: Final = "UPDATE peers SET last_seen = max(last_seen, ?) WHERE ref = ?"
_SET_STATUS: Final = "UPDATE presence SET status = ? WHERE link = ? AND session_id = ?"
_ARRIVE: Final = "UPDATE peers SET present = 1 WHERE ref = ? AND present = 0"
_DEPART: Final = "UPDATE peers SET present = 0 WHERE mesh_id = ? AND peer_id = ? AND present = 1"
_DEPART_ABSENT: Final = """
    UPDATE peers SET present = 0 WHERE ref IN (
        SELECT ref FROM peers p
        WHERE present = 1 AND last_seen < ?
            AND NOT EXISTS (SELECT 1 FROM presence s WHERE s.mesh_id = p.mesh_id AND s.peer_id = p.peer_id)
        LIMIT ?
    ) RETURNING mesh_id, peer_id
"""


class Presence:
    """Sessions under their links. Methods that change something run on the writer's thread."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses

    def set(self, connection: sqlite3.Connection, sessions: Sequence[SessionRow]) -> None:
        """Announce sessions, or replace what was announced."""
        _SET.execute(
            connection,
            [
                (s.mesh, s.peer, s.session, s.sid, s.pid, s.cwd, s.status, s.connected_at, s.last_seen, s.link)
                for s in sessions
            ],
        )

    def take_over(self, connection: sqlite3.Connection, session: SessionRow) -> LinkId | None:
        """Announce a session; returns the other link that had it."""
        before = _rows(connection, _OF_SESSION, session.mesh, session.peer, session.session)
        self.set(connection, [session])
        return next((row.link for row in before if row.link != session.link), None)

    def set_statuses(self, connection: sqlite3.Connection, statuses: Sequence[tuple[LinkId, SessionId, str]]) -> None:
        """Change what sessions say of themselves."""
        connection.executemany(_SET_STATUS, [(status, link, session) for link, session, status in statuses])

    def arrive(self, connection: sqlite3.Connection, mesh: MeshId, peer: PeerId) -> bool:
        """A peer is present; returns whether it was not before."""
        ref = self._addresses.obtain(connection, [(mesh, peer)])[mesh, peer]
        return connection.execute(_ARRIVE, (ref,)).rowcount == 1

    def depart(self, connection: sqlite3.Connection, mesh: MeshId, peer: PeerId) -> bool:
        """A peer is absent; returns whether it was present."""
        return connection.execute(_DEPART, (mesh, peer)).rowcount == 1

    def depart_absent(
        self, connection: sqlite3.Connection, before: UnixMillis, limit: int
    ) -> list[tuple[MeshId, PeerId]]:
        """Peers that have no session, and were not heard from since, are absent."""
        return connection.execute(_DEPART_ABSENT, (before, limit)).fetchall()

    def clear_links(self, connection: sqlite3.Connection, first: LinkId, end: LinkId) -> None:
        """Remove the sessions of the links of a node."""
        self._remove(connection, _rows(connection, _OF_LINKS, first, end))

    def touch(self, connection: sqlite3.Connection, links: Sequence[LinkId], now: UnixMillis) -> None:
        """Renew every session of these links."""
        connection.execute(_TOUCH, (now, json.dumps(list(links))))

    def end_session(self, connection: sqlite3.Connection, mesh: MeshId, peer: PeerId, session: SessionId) -> None:
        """Remove one session."""
        self._remove(connection, _rows(connection, _OF_SESSION, mesh, peer, session))

    def clear(self, connection: sqlite3.Connection, link: LinkId) -> None:
        """Remove the sessions of a link."""
        self._remove(connection, _rows(connection, _OF_LINK, link))

    def expire(self, connection: sqlite3.Connection, before: UnixMillis) -> list[SessionRow]:
        """Remove the sessions last seen before `before`."""
        return self._remove(connection, _rows(connection, _BEFORE, before))

    def _remove(self, connection: sqlite3.Connection, sessions: list[SessionRow]) -> list[SessionRow]:
        refs = self._addresses.obtain(connection, [(row.mesh, row.peer) for row in sessions])
        for row in sessions:
            connection.execute(_DELETE, (row.mesh, row.peer, row.session))
            connection.execute(_KEEP_LAST_SEEN, (row.last_seen, refs[row.mesh, row.peer]))
        return sessions


def sessions_of(connection: sqlite3.Connection, mesh: MeshId) -> list[SessionRow]:
    """The sessions that are connected now."""
    return _rows(connection, _OF_MESH, mesh)


def last_seen(connection: sqlite3.Connection, mesh: MeshId) -> dict[PeerId, UnixMillis]:
    """When each peer was last heard from."""
    return dict(connection.execute(_LAST_SEEN, (mesh,)).fetchall())


def _rows(connection: sqlite3.Connection, statement: str, *parameters: Any) -> list[SessionRow]:
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
        for mesh, peer, session, sid, pid, cwd, status, connected_at, seen, link in connection.execute(
            statement, parameters
        ).fetchall()
    ]
