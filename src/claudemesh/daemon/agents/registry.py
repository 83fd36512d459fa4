"""Every running session of an agent on this machine: opened by its host, found again by the host's own id."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, suppress
from pathlib import PurePath
from typing import Final, get_args

from claudemesh.daemon.agents.moments import Reach
from claudemesh.daemon.agents.session import AgentSession
from claudemesh.daemon.agents.taking import Face
from claudemesh.daemon.home import Home
from claudemesh.daemon.logs import log_event
from claudemesh.errors import ClaudemeshError, UsageError
from claudemesh.peer import Peer, contents, events
from claudemesh.peer.journal import offers

MAX_SESSIONS: Final = 256
WAKE_WITHIN_S: Final = 30.0
"""A session that was to wake and has taken nothing by then is passed over for another one."""
_MAX_KEY_CHARACTERS: Final = 256
_REACH_ORDER: Final = ("wakeable", "tool", "turn", "asked")


class Agents:
    """The one registry of agents' sessions."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._sessions: dict[str, AgentSession] = {}
        self._followers: dict[Peer, asyncio.Task[None]] = {}
        self._opening = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self.on_open: Callable[[AgentSession], None] = lambda _session: None
        self.on_close: Callable[[AgentSession], Awaitable[None]] = _nothing
        self.taking = asyncio.Lock()
        """Two sessions must not take one message."""
        home.opened = self._follow_peer

    async def open(
        self,
        host: str,
        key: str,
        *,
        cwd: str = "",
        label: str = "",
        mesh: str = "",
        tags: Iterable[str] = (),
        reach: Reach = "asked",
        process: int = 0,
    ) -> AgentSession:
        """The session that a host knows as `key`: opened now, unless it is open.

        Args:
            host: Such as `claude-code`, `codex`, `mcp`.
            key: The host's own id of the session, which survives a restart of anything.
            cwd: Its working directory; stays on this machine.
            label: What others address it by; empty for what it was called before, or else the base name of `cwd`.
            tags, reach: What it is good for, and how it is reached; left out as it was before.
            mesh: The only mesh that it is to speak in; empty for every one, those joined later included.
            process: Its host's, where that is known; a session that goes on in another one has moved there.

        Raises:
            UsageError: A name, a tag or the key is not one, or too many are open.
            AddressError: There is no such mesh.
        """
        _check_key(host, key)
        async with self._opening:
            found = self.find(host, key)
            is_new = found is None
            if found is None:
                found = await self._open(host, key, cwd, label, mesh, tuple(tags), reach)
            found.process = process or found.process
        await self.settle(found)
        if is_new:
            self.on_open(found)
        return found

    def find(self, host: str = "", key: str = "", cwd: str = "", process: int = 0) -> AgentSession | None:
        """The open session that fits whatever is given; of several, the one that did something last."""
        fitting = [
            one
            for one in self._sessions.values()
            if host in ("", one.host) and key in ("", one.key) and cwd in ("", one.cwd) and process in (0, one.process)
        ]
        return max(fitting, key=lambda one: one.active_at, default=None)

    def sessions(self) -> list[AgentSession]:
        """Every open session, in the order of opening."""
        return list(self._sessions.values())

    def speaking(self, peer: Peer, label: str) -> AgentSession | None:
        """The session that others address by this label in the peer's mesh."""
        for one in self._sessions.values():
            if peer.mesh in one.faces and one.faces[peer.mesh][0].session.label == label:
                return one
        return None

    async def adopt(self, session: AgentSession, host: str, key: str) -> AgentSession:
        """The session turned out to be the one that its host knows as `key`.

        Returns:
            The session to use from now on: the one that was open under that key, else this one under its new name.
        """
        _check_key(host, key)
        async with self._opening, self.taking:
            known = self.find(host, key)
            if known is session:
                return session
            before = session.agent
            if known is None:
                await session.rename(host, key)
                del self._sessions[before]
                self._sessions[session.agent] = session
                await self.on_close(session)  # another host's adapter works for it from now on
                self.on_open(session)
                return session
            for face, _ in session.faces.values():
                await face.session.offers.move(before, known.agent)
            await self._close(session)
            return known

    async def close(self, session: AgentSession) -> None:
        """End a session: it leaves presence. What was shown to it stays recorded."""
        async with self._opening:
            await self._close(session)
        self.changed()

    async def close_all(self) -> None:
        """The daemon stops."""
        for session in self.sessions():
            await self.close(session)
        if self._timer is not None:
            self._timer.cancel()
        for follower in self._followers.values():
            follower.cancel()
        await asyncio.gather(*self._followers.values(), return_exceptions=True)

    # For the sessions

    async def settle(self, session: AgentSession) -> None:
        """See that a session speaks in every mesh that it should, also after its peer was opened anew."""
        async with session.settling:
            peers = [one for one in self._home.peers if session.mesh in ("", one.alias, one.mesh)]
            for mesh, (face, stack) in list(session.faces.items()):
                if face.peer not in peers:
                    del session.faces[mesh]
                    with suppress(ClaudemeshError):
                        await stack.aclose()
            for peer in peers:
                if session.is_open and peer.mesh not in session.faces:
                    await self._enter(session, peer)

    def others_of(self, session: AgentSession) -> list[str]:
        """The names of the other open sessions."""
        return [one.agent for one in self._sessions.values() if one is not session]

    def is_nominated(self, session: AgentSession) -> bool:
        """Whether messages to the peer as such should wake this session: idle before busy, the one used last."""
        now = time.monotonic()
        self._look_again_later()

        def preference(one: AgentSession) -> tuple[bool, bool, int, float]:
            passed_over = one.told_at is not None and now - one.told_at > WAKE_WITHIN_S
            return passed_over, one.is_dnd or one.status != "idle", _REACH_ORDER.index(one.reach), -one.active_at

        return min(self._sessions.values(), key=preference, default=None) is session

    def changed(self) -> None:
        """Have every session look whether there is news."""
        for session in self._sessions.values():
            session.ring()

    # Private

    async def _open(
        self, host: str, key: str, cwd: str, label: str, mesh: str, tags: tuple[str, ...], reach: Reach
    ) -> AgentSession:
        if len(self._sessions) >= MAX_SESSIONS:
            raise UsageError("usage", f"{MAX_SESSIONS} sessions are open already")
        if mesh:
            mesh = self._home.peer(mesh).mesh
        before = await self._home.journal.read(lambda connection: offers.load_told(connection, f"{host}:{key}"))
        known = before or offers.Told(contents.as_label(PurePath(cwd).name) or contents.as_label(host) or "agent")
        session = AgentSession(self, host, key, cwd=cwd, label="", mesh=mesh)
        session.tags = contents.require_tags(tags or known.tags)
        session.reach = reach if reach != "asked" else _reach(known.reach)
        session.about = known.about
        session.label = self._free_label(contents.as_label(label) or known.label)
        self._sessions[session.agent] = session
        log_event("agent_opened", count=len(self._sessions))
        return session

    async def _enter(self, session: AgentSession, peer: Peer) -> None:
        stack = AsyncExitStack()
        try:
            opened = await stack.enter_async_context(self._home.session(peer, session.label, session.tags))
        except UsageError:  # a terminal watches under this label
            other = self._free_label(session.label, peer)
            opened = await stack.enter_async_context(self._home.session(peer, other, session.tags))
        opened.describe(reach=session.reach, about=session.about)
        await opened.offers.begin(session.agent, session.told())
        session.faces[peer.mesh] = Face(peer, opened), stack
        with suppress(ClaudemeshError):
            await opened.set_status(session.status)

    async def _close(self, session: AgentSession) -> None:
        if self._sessions.get(session.agent) is session:
            del self._sessions[session.agent]
            log_event("agent_closed", count=len(self._sessions))
        await self.on_close(session)
        await session.leave()

    def _free_label(self, wanted: str, peer: Peer | None = None) -> str:
        """The label itself, or with a number when another session bears it."""
        taken = {one.label for one in self._sessions.values()}
        taken |= {label for each, label in self._home.session_labels() if peer is None or each == peer.mesh}
        number, label = 2, wanted
        while label in taken:
            label = f"{wanted[: contents.MAX_NAME_CHARACTERS - 4]}-{number}"
            number += 1
        return label

    def _follow_peer(self, peer: Peer) -> None:
        """A peer was opened: its sessions are opened with it, and its messages are news."""
        task = self._followers[peer] = asyncio.create_task(self._follow(peer))
        task.add_done_callback(lambda _: self._followers.pop(peer, None))

    async def _follow(self, peer: Peer) -> None:
        for session in self.sessions():
            with suppress(ClaudemeshError):
                await self.settle(session)
        async for event in peer.events():
            if isinstance(event, events.MessageArrived | events.QuietChanged | events.EventsDropped):
                self.changed()

    def _look_again_later(self) -> None:
        """Who was to wake may not do it; then it is another one's turn."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WAKE_WITHIN_S + 1, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        if any(one.told_at is not None for one in self._sessions.values()):
            self.changed()


async def _nothing(_session: AgentSession) -> None:
    return None


def _reach(known: str) -> Reach:
    return next((one for one in get_args(Reach) if one == known), "asked")


def _check_key(host: str, key: str) -> None:
    if not contents.is_name(host) or not 1 <= len(key) <= _MAX_KEY_CHARACTERS or not key.isprintable():
        raise UsageError("usage", "a session is opened by the name of its host and the host's own id of it")
