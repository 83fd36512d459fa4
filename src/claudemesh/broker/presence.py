"""Who is connected: pure, the clock is an argument (docs/spec/broker.md §5).

A peer joins with its first link. It leaves when its last link was silent for a whole lease, or when that
link was lost, or closed, and no other came within the grace: a reconnect is neither a leave nor a join.
"""

from dataclasses import dataclass, field

from claudemesh.broker.store.base import LinkId
from claudemesh.crypto.statements import Statement
from claudemesh.protocol.messages import PeerPresence, SessionPresence, Status
from claudemesh.types import MeshId, PeerId, SessionId, UnixMillis


@dataclass(slots=True)
class Connected:
    """One session that a link has announced."""

    link: LinkId
    attestation: Statement
    status: Status
    sid: str
    since: UnixMillis


@dataclass(slots=True)
class PeerState:
    """One peer that the broker has heard from since it started."""

    seen: UnixMillis
    sessions: dict[SessionId, Connected] = field(default_factory=dict)
    links: int = 0
    leaves_at: UnixMillis | None = None
    """When it counts as gone, unless a link opens before; None while it has a link, or is gone."""


class Presence:
    """Presence of every mesh, in memory."""

    def __init__(self, grace_ms: int) -> None:
        self._grace_ms = grace_ms
        self._meshes: dict[MeshId, dict[PeerId, PeerState]] = {}
        self._leaving: dict[tuple[MeshId, PeerId], UnixMillis] = {}
        self._statuses: dict[tuple[LinkId, SessionId], Status] = {}

    def restore(self, mesh: MeshId, peer: PeerId, seen: UnixMillis, now: UnixMillis) -> None:
        """A peer that was connected when the broker stopped: coming back is not a join."""
        state = self._meshes.setdefault(mesh, {}).setdefault(peer, PeerState(seen))
        if not state.links:
            self._leave_later(mesh, peer, state, now)

    def link_opened(self, mesh: MeshId, peer: PeerId, now: UnixMillis) -> bool:
        """A link opened. Returns whether its peer has joined by it."""
        peers = self._meshes.setdefault(mesh, {})
        state = peers.get(peer)
        joined = state is None or (not state.links and state.leaves_at is None)
        if state is None:
            state = peers[peer] = PeerState(now)
        state.links += 1
        state.seen = now
        state.leaves_at = None
        self._leaving.pop((mesh, peer), None)
        return joined

    def link_closed(self, mesh: MeshId, peer: PeerId, link: LinkId, heard_at: UnixMillis, now: UnixMillis) -> None:
        """A link ended; its sessions are gone, its peer after the grace."""
        state = self._state(mesh, peer)
        if state is None:
            return
        state.links -= 1
        state.seen = max(state.seen, heard_at)
        state.sessions = {key: one for key, one in state.sessions.items() if one.link != link}
        if not state.links:
            self._leave_later(mesh, peer, state, now)

    def link_silent(self, mesh: MeshId, peer: PeerId) -> bool:
        """A link that was silent for a lease has ended. Returns whether its peer has left by it."""
        state = self._state(mesh, peer)
        if state is None or state.links or state.leaves_at is None:
            return False
        self._leave(mesh, peer, state)
        return True

    def removed(self, mesh: MeshId, peer: PeerId) -> bool:
        """A peer was revoked. Returns whether it was present."""
        state = self._meshes.get(mesh, {}).pop(peer, None)
        self._leaving.pop((mesh, peer), None)
        return state is not None and (state.links > 0 or state.leaves_at is not None)

    def left(self, now: UnixMillis) -> list[tuple[MeshId, PeerId]]:
        """Peers whose grace has passed; each is reported once."""
        gone = [key for key, leaves_at in self._leaving.items() if leaves_at <= now]
        for mesh, peer in gone:
            self._leave(mesh, peer, self._meshes[mesh][peer])
        return gone

    def announce(self, mesh: MeshId, peer: PeerId, session: SessionId, connected: Connected) -> None:
        """A link announced a session, or announced it again."""
        state = self._state(mesh, peer)
        if state is None:
            return
        known = state.sessions.get(session)
        if known is not None and known.link == connected.link:
            connected.since = known.since
        state.sessions[session] = connected

    def set_status(self, mesh: MeshId, peer: PeerId, session: SessionId, link: LinkId, status: Status) -> bool:
        """Change one session of `link`; returns whether it has announced that session."""
        connected = self._session(mesh, peer, session, link)
        if connected is None:
            return False
        connected.status = status
        self._statuses[link, session] = status
        return True

    def take_statuses(self) -> list[tuple[LinkId, SessionId, str]]:
        """What sessions have said of themselves since the last call."""
        statuses, self._statuses = self._statuses, {}
        return [(link, session, status) for (link, session), status in statuses.items()]

    def end(self, mesh: MeshId, peer: PeerId, session: SessionId, link: LinkId) -> bool:
        """Remove one session of `link`; returns whether it was there."""
        if self._session(mesh, peer, session, link) is None:
            return False
        del self._meshes[mesh][peer].sessions[session]
        return True

    def sessions_of(self, mesh: MeshId, peer: PeerId, link: LinkId) -> list[tuple[SessionId, Connected]]:
        """What one link has announced."""
        state = self._state(mesh, peer)
        return [] if state is None else [(key, one) for key, one in state.sessions.items() if one.link == link]

    def listing(self, mesh: MeshId, last_seen: dict[PeerId, UnixMillis]) -> list[PeerPresence]:
        """Every peer that was ever heard from; `last_seen` is what the store remembers."""
        states = self._meshes.get(mesh, {})
        rows = []
        for peer in {**last_seen, **states}:
            state = states.get(peer)
            if state is None:
                rows.append(PeerPresence(member=peer, seen=last_seen[peer]))
                continue
            sessions = [
                SessionPresence(sess=key, att=one.attestation, status=one.status, sid=one.sid, since=one.since)
                for key, one in state.sessions.items()
            ]
            seen = max(state.seen, last_seen.get(peer, UnixMillis(0)))
            rows.append(PeerPresence(member=peer, seen=seen, sessions=sessions))
        return rows

    def forget_all_but(self, loaded: set[MeshId]) -> None:
        """Drop meshes that are not in memory and of which nobody is present; the store knows who was last seen."""
        for mesh in set(self._meshes) - loaded:
            if not any(state.links or state.leaves_at is not None for state in self._meshes[mesh].values()):
                del self._meshes[mesh]

    def _state(self, mesh: MeshId, peer: PeerId) -> PeerState | None:
        return self._meshes.get(mesh, {}).get(peer)

    def _session(self, mesh: MeshId, peer: PeerId, session: SessionId, link: LinkId) -> Connected | None:
        state = self._state(mesh, peer)
        connected = None if state is None else state.sessions.get(session)
        return connected if connected is not None and connected.link == link else None

    def _leave_later(self, mesh: MeshId, peer: PeerId, state: PeerState, now: UnixMillis) -> None:
        state.leaves_at = self._leaving[mesh, peer] = UnixMillis(now + self._grace_ms)

    def _leave(self, mesh: MeshId, peer: PeerId, state: PeerState) -> None:
        state.leaves_at = None
        self._leaving.pop((mesh, peer), None)
        if not state.links:
            state.sessions.clear()
