"""The link of one peer to its mesh's broker: dialled again and again, synced, drained both ways.

Every task of a link lives in one group: when any of them ends the link, all end, and what was in flight is
found again in the journal.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from claudemesh.crypto.statements import Statement
from claudemesh.errors import ClaudemeshError, Refused, Unreachable
from claudemesh.peer import events
from claudemesh.peer.config import BrokerAddress
from claudemesh.peer.foundation import Foundation
from claudemesh.peer.incoming import Incoming
from claudemesh.peer.line import Connect, Line, dial
from claudemesh.peer.outgoing import Outgoing
from claudemesh.peer.posting import Posting
from claudemesh.peer.presence import PresenceView
from claudemesh.peer.redialling import redial_after_ms
from claudemesh.peer.roster_news import RosterNews
from claudemesh.peer.settling import is_about_posts, is_about_sends, open_acceptance
from claudemesh.peer.uploading import upload_log
from claudemesh.protocol.link import Member, Opened
from claudemesh.protocol.messages import (
    Accepted,
    BrokerMessage,
    End,
    Log,
    Pong,
    Push,
    SetStatus,
    Status,
    Sys,
)
from claudemesh.protocol.messages import Refused as RefusedMessage
from claudemesh.types import BrokerId, Digest, SessionId

_log = logging.getLogger(__name__)

CLOCK_WATCH_S: Final = 1.0
MOVE_GRACE_S: Final = 35.0
"""How long to stay with a broker that the mesh has left, while it hands out what it holds."""


async def _nothing(*_: object) -> None:
    return None


@dataclass(slots=True)
class UplinkHooks:
    """Whom to tell about a link; set where the peer is composed."""

    opened: Callable[[Opened, BrokerId], Coroutine[Any, Any, None]] = _nothing
    """After the roster is synced, before anything is sent."""
    serve: Callable[[Line], Coroutine[Any, Any, None]] = _nothing
    """Runs for as long as the link is open."""


class Uplink:
    """Keeps one link open."""

    def __init__(
        self,
        on: Foundation,
        presence: PresenceView,
        incoming: Incoming,
        outgoing: Outgoing,
        posting: Posting,
        connect: Connect,
    ) -> None:
        self._membership = on.membership
        self._keyring = on.keyring
        self._sessions = on.sessions
        self._attesting = on.attesting
        self._cards = on.cards
        self._hub = on.hub
        self._clock = on.clock
        self._runtime = on.runtime
        self._presence = presence
        self._incoming = incoming
        self._outgoing = outgoing
        self._posting = posting
        self._connect = connect
        self.hooks = UplinkHooks()
        self._line: Line | None = None
        self._ready = asyncio.Event()
        self._retry_now = asyncio.Event()
        self._news = RosterNews(on.membership)
        self._moved = asyncio.Event()
        self.down: events.LinkDown | None = None
        """Why there is no link, while there is none."""

    @property
    def is_open(self) -> bool:
        """Whether the link is open and the roster synced."""
        return self._ready.is_set()

    @property
    def url(self) -> str:
        """Where the mesh's broker answers, as the roster says; before there is one, as the keystore does."""
        return self._membership.roster.broker_url or self._keyring.keys.broker.url

    @property
    def broker(self) -> BrokerId:
        """The key of the mesh's broker."""
        return self._membership.roster.broker or self._keyring.keys.broker_id

    def roster_changed(self) -> None:
        """The roster may name another broker now."""
        self._moved.set()

    def reconnect(self) -> None:
        """Dial at once instead of waiting for the next attempt."""
        self._retry_now.set()

    async def line(self, timeout_ms: int | None = None) -> Line:
        """The open line, waited for.

        Raises:
            Unreachable: `broker_unreachable`; there was no link in time.
        """
        limit_ms = self._runtime.tempo.request_timeout_ms if timeout_ms is None else timeout_ms
        try:
            async with asyncio.timeout(limit_ms / 1000):
                while self._line is None:
                    await self._ready.wait()
        except TimeoutError as error:
            down = self.down
            raise Unreachable("broker_unreachable", f"{down.code} {down.detail}" if down else self.url) from error
        return self._line

    def require_member(self) -> None:
        """Raise `Refused` (`removed`) when the broker says that this peer was removed from the mesh."""
        if self.down is not None and self.down.code == "revoked":
            raise Refused("removed", "the broker says that this device is no peer of the mesh any more")

    async def is_refused(self, code: str) -> bool:
        """Whether the next attempts to open a link are refused with `code`; False when one opens or time is up."""
        with suppress(TimeoutError), self._hub.watch() as watch:
            async with asyncio.timeout(self._runtime.tempo.request_timeout_ms / 1000):
                async for event in watch:
                    if isinstance(event, events.LinkUp):
                        return False
                    if isinstance(event, events.LinkDown) and event.code == code:
                        return True
        return False

    async def run(self) -> None:
        """Keep the link open until cancelled."""
        attempt = 0
        while True:
            was_ready, error = await self._isolated_link()
            attempt = 0 if was_ready else attempt + 1
            retry_ms = redial_after_ms(attempt, error, self._runtime)
            code, detail = (error.code, error.detail) if isinstance(error, ClaudemeshError) else ("internal", "")
            self.down = events.LinkDown(code, detail, retry_ms)
            self._hub.publish(self.down)
            self._retry_now.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(retry_ms / 1000):
                    await self._retry_now.wait()

    # One link

    async def _isolated_link(self) -> tuple[bool, Exception]:
        """Open and serve a link in a task of its own.

        A task group that fails while it is cancelled reports the failure and forgets the cancellation; one that fails
        leaves its task marked as cancelled. Neither may reach the loop that dials.
        """
        link = asyncio.create_task(self._one_link(), name="link")
        try:
            await asyncio.wait({link})
        finally:
            link.cancel()
            await asyncio.wait({link})
        return (False, Unreachable("link_lost")) if link.cancelled() else link.result()

    async def _one_link(self) -> tuple[bool, Exception]:
        """Open a link and serve it; returns whether it was ready, and why it ended."""
        was_ready = False
        try:
            line, opened = await self._dial()
            try:
                await self._serve(line, opened)
            finally:
                was_ready = self._ready.is_set()
                self._line = None
                self._ready.clear()
                self._presence.forget()
                await line.close()
        except (ClaudemeshError, ExceptionGroup) as error:
            return was_ready, _cause(error)
        except Exception as error:  # noqa: BLE001 – isolates one link; the next one starts from the journal
            _log.exception("a link ended by a defect")
            return was_ready, error
        return was_ready, Unreachable("link_lost")

    async def _dial(self) -> tuple[Line, Opened]:
        """Dial; a broker that should hold the mesh and does not is given its roster first."""
        try:
            return await self._hello()
        except Refused as error:
            if error.code != "unknown_mesh" or self._membership.roster.seq < 0:
                raise
        await upload_log(self._connect, self.url, self.broker, self._membership.entries(), self._runtime)
        self._membership.gave_back = True
        return await self._hello()

    async def _hello(self) -> tuple[Line, Opened]:
        self._clock.begin_link()
        session, roster = self._sessions.main, self._membership.roster
        if session.renewal_due(self._runtime.now()):
            session = self._sessions.renew(session)
        dialler = Member(
            mesh=self._membership.mesh,
            member=self._keyring.member,
            session=session.keys,
            attestation=session.statement,
            roster_seq=max(roster.seq, 0),
            roster_head=roster.head if roster.seq >= 0 else Digest(self._membership.mesh),
        )
        line, opened = await dial(self._connect, self.url, self.broker, dialler, self._runtime)
        assert isinstance(opened, Opened)
        return line, opened

    async def _serve(self, line: Line, opened: Opened) -> None:
        self._news.begin_link()
        self._cards.begin_link()
        self._incoming.begin_link(line.broker)
        self._outgoing.begin_link(line.broker)
        self._posting.begin_link(line.broker)
        self._attesting.begin_link()
        async with asyncio.TaskGroup() as group:
            group.create_task(line.run(lambda message: self._handle(line, message)))
            await self._news.sync(line)
            await self.hooks.opened(opened, line.broker)
            await self._introduce(line)
            group.create_task(self._news.follow(line, self._outgoing.wake))
            group.create_task(self._incoming.run(line))
            group.create_task(self._outgoing.run(line))
            group.create_task(self.hooks.serve(line))
            group.create_task(self._leave_after_move(line))
            group.create_task(self._watch_clock())
            self._line, self.down = line, None
            self._ready.set()
            self._hub.publish(events.LinkUp(self.url, opened.queued))
            if line.broker != self.broker:
                self._moved.set()

    async def _introduce(self, line: Line) -> None:
        """Publish what the others need to know of this peer: its card, and the sessions under it."""
        await self._cards.publish(line)
        await self._attesting.introduce(line)

    async def end_session(self, session: SessionId) -> None:
        """Take a session out of presence, if there is a link."""
        if self._line is not None:
            with suppress(Unreachable):
                await self._line.post(End(sess=session))

    async def set_status(self, session: SessionId, status: Status) -> None:
        """Change what presence says of a session, if there is a link; the next one says it anyway."""
        if self._line is not None:
            with suppress(Unreachable):
                await self._line.post(SetStatus(sess=session, status=status))

    # Frames that answer no request

    def _handle(self, line: Line, message: BrokerMessage) -> None:
        match message:
            case Push():
                self._incoming.take_push(message)
            case Accepted(st=statement):
                self._take_accepted(statement, line.broker)
            case RefusedMessage(id=str(), to=str()):
                self._outgoing.take_refused(message)
            case RefusedMessage(id=str()):
                self._posting.take_refused(message)
            case Log():
                self._news.add(message)
            case Pong(sth=Statement() as head):
                self._news.add(head)
            case Sys(st=statement):
                self._presence.take_sys(statement, line.broker)
            case _:
                pass

    def _take_accepted(self, statement: Statement, broker: BrokerId) -> None:
        """The broker states that it stored envelopes; without a valid signature nothing was accepted."""
        answer = open_acceptance(statement, self._membership.mesh, broker)
        if is_about_sends(answer):
            self._outgoing.take_accepted(answer)
        if is_about_posts(answer):
            self._posting.take_accepted(answer)

    async def _leave_after_move(self, line: Line) -> None:
        """When the mesh has moved: stay until the old broker has handed out what it holds and closes, not for ever."""
        while line.broker == self.broker:
            self._moved.clear()
            await self._moved.wait()
        await asyncio.sleep(MOVE_GRACE_S)
        raise Unreachable("link_lost", "moved")

    async def _watch_clock(self) -> None:
        """When the clock was set, the next link compares it anew, also where nothing is sent or received."""
        while True:
            await asyncio.sleep(CLOCK_WATCH_S)
            self._clock.now()

    def address(self) -> BrokerAddress:
        """What the keystore is to remember of the broker."""
        return BrokerAddress(self.url, self.broker)


def _cause(error: BaseException) -> Exception:
    """The failure that ended a group of tasks: the first that is ours, however deep."""
    if isinstance(error, ExceptionGroup):
        causes = [_cause(inner) for inner in error.exceptions]
        ours = [cause for cause in causes if isinstance(cause, ClaudemeshError)]
        if not ours:
            _log.error("a link ended by a defect", exc_info=causes[0])
        return ours[0] if ours else causes[0]
    assert isinstance(error, Exception)
    return error
