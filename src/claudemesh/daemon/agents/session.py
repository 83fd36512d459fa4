"""One running session of a host: what it goes by in each mesh, what it may be shown, and what became of that."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final, Protocol, cast

from claudemesh.daemon.agents.composing import REPLY_TOOL
from claudemesh.daemon.agents.moments import LOW, NEXT, NOW, Moment, Reach, shown_at, status_after
from claudemesh.daemon.agents.news import News, Waiting
from claudemesh.daemon.agents.taking import Face, Place, Request, Taken, take_one, take_waiting
from claudemesh.errors import AddressError, ClaudemeshError, UsageError
from claudemesh.peer import Peer
from claudemesh.peer.credentials import require_no_credentials
from claudemesh.peer.journal.offers import IN_DOUBT, OfferRow, Told, Wanted
from claudemesh.peer.peer_session import PeerSession
from claudemesh.protocol.messages import Status
from claudemesh.types import MeshId, UnixMillis

DOUBT_AFTER_S: Final = 60.0
"""An offer that the host has not taken by then may or may not have been shown."""
NEWS_PAUSE_S: Final = 0.05
"""Under load a session looks so often whether there is news; otherwise at once."""
_WORD = re.compile(r"[a-z][a-z0-9_.-]{0,63}\Z")


class Registry(Protocol):
    """What a session needs of the others."""

    taking: asyncio.Lock

    async def settle(self, session: "AgentSession") -> None:
        """See that the session speaks in every mesh that it should."""
        ...

    def others_of(self, session: "AgentSession") -> list[str]:
        """The names of the other open sessions."""
        ...

    def is_nominated(self, session: "AgentSession") -> bool:
        """Whether messages to the peer as such should wake this session."""
        ...

    def changed(self) -> None:
        """Something changed that may be news to any session."""
        ...


class AgentSession:
    """A session of an agent, known by its host's own id of it; it speaks in every mesh of this machine, or in one."""

    def __init__(self, registry: Registry, host: str, key: str, *, cwd: str, label: str, mesh: str) -> None:
        self.host = host
        self.key = key
        self.cwd = cwd
        self.label = label
        self.mesh = mesh
        """The only mesh that it speaks in; empty for every one."""
        self.status: Status = "idle"
        self.status_at = UnixMillis(0)
        """When that was last said of it."""
        self.reach: Reach = "asked"
        self.about = ""
        self.tags: tuple[str, ...] = ()
        self.process = 0
        """Its host's; 0 when it is not known."""
        self.is_dnd = False
        self.active_at = time.monotonic()
        self.told_at: float | None = None
        """Since when it has known of something that should wake it, without taking anything."""
        self.faces: dict[MeshId, tuple[Face, AsyncExitStack]] = {}
        self.settling = asyncio.Lock()
        self._registry = registry
        self._offered_at: dict[int, float] = {}
        self._is_woken = False
        self._bells: set[asyncio.Event] = set()
        self.is_open = True

    # Who it is

    @property
    def agent(self) -> str:
        """What the journal knows it by: the same after a restart of anything."""
        return f"{self.host}:{self.key}"

    def addresses(self) -> list[str]:
        """How others address it, in each mesh."""
        return [f"{face.peer.address_of(face.peer.id)}/{face.session.label}" for face, _ in self.faces.values()]

    def speaker(self, mesh: str = "") -> tuple[Peer, PeerSession]:
        """Its peer and session in a mesh, by alias or the beginning of the id; with "" in the only one.

        Raises:
            AddressError: `no_mesh`, `ambiguous_mesh`, `unknown_mesh_alias`.
        """
        wanted = mesh or self.mesh
        found = [one for one, _ in self.faces.values() if wanted in ("", one.peer.alias, one.peer.mesh)]
        if wanted and not found and len(wanted) >= 8:
            found = [one for one, _ in self.faces.values() if one.peer.mesh.startswith(wanted.lower())]
        if len(found) == 1:
            return found[0].peer, found[0].session
        if wanted:
            raise AddressError("unknown_mesh_alias", wanted)
        code = "ambiguous_mesh" if found else "no_mesh"
        raise AddressError(code, ", ".join(one.peer.alias for one in found))

    def told(self) -> Told:
        """What the other peers are told of it."""
        return Told(self.label, self.reach, self.about, self.tags)

    # What it is shown

    async def take(
        self,
        moment: Moment,
        adapter: str,
        limit_characters: int = 9_500,
        *,
        reply: str = REPLY_TOOL,
        messages: int = 20,
    ) -> Taken:
        """Pick what this moment may show, record that it is offered, and draw it.

        Args:
            adapter: How it will be shown, as its senders are told: letters, digits, `_`, `.` and `-`.
            limit_characters: What the host takes at once, 2,000 or more UTF-16 code units.
            reply: How to answer, `{to}` and `{id}` are filled in.
            messages: At most so many.

        Returns:
            What to show; nothing is also an answer. An offer that is neither handed over, confirmed nor withdrawn
            is not made again in this session, unless it asks.

        Raises:
            LocalError: The disk refused it; nothing was offered.
        """
        request = Request(_word(adapter), limit_characters, reply, messages)
        async with self._registry.taking:
            await self._registry.settle(self)
            doubtful = await self.doubtful() if moment == "inbox" else None
            if moment == "prompt":
                self._prompted()
            places = [Place(face, self._wanted(moment)) for face in self._faces()]
            taken = await take_waiting(places, request, doubtful)
            self._note_offers(taken)
        if moment != "inbox":  # to ask says nothing about a turn
            await self.set_status(status_after(moment, self.status, shown=bool(taken.offers)))
        return taken._replace(waiting=(await self.waiting()).total)

    async def take_message(
        self, message_id: str, adapter: str, limit_characters: int = 9_500, *, reply: str = REPLY_TOOL
    ) -> Taken:
        """One message by its id or its first 8 digits, from where it was cut; once more when it was shown to its end.

        Raises:
            AddressError: `unknown_message`; also for one that is addressed to another session.
        """
        request = Request(_word(adapter), limit_characters, reply, 1)
        async with self._registry.taking:
            await self._registry.settle(self)
            places = [Place(face, self._wanted("inbox")) for face in self._faces()]
            taken = await take_one(places, message_id, request, await self.doubtful())
            self._note_offers(taken)
        return taken._replace(waiting=(await self.waiting()).total)

    def wake(self) -> None:
        """The host will report as a prompt what it was given: the next one is not its user's, and begins nothing."""
        self._is_woken = True

    async def handed(self, offers: Sequence[int]) -> None:
        """The host was given these; whether its model sees them is not known yet."""
        for face in self._faces() if offers else ():
            await face.session.offers.hand(self.agent, offers)

    async def confirm(self, offers: Sequence[int], evidence: str) -> None:
        """There is evidence that these are in the model's context; their senders get `read`, signed by this session.

        Args:
            evidence: What shows it, one word such as `tool_result`, `turn_ended`, `transcript`.
        """
        evidence = _word(evidence)
        for face in self._faces() if offers else ():
            await face.session.offers.confirm(self.agent, offers, evidence)
        self._forget_offers(offers)

    async def confirm_handed(self, evidence: str, adapter: str = "") -> int:
        """Confirm whatever the host was given before, as its next event shows; returns how many there were."""
        rows = [row for row in await self._open_rows() if row.is_expected and adapter in ("", row.adapter)]
        await self.confirm([row.id for row in rows], evidence)
        return len(rows)

    async def doubt_handed(self) -> None:
        """The host's process began anew: what it was given before may have ended with the former one.

        Its next event is then no evidence; those offers are doubtful, until something else shows what became of them.
        """
        for face in self._faces():
            await face.session.offers.doubt(self.agent)

    async def confirm_reply(self, message_id: str) -> None:
        """The agent answered a message: what it was given of it, it has read."""
        wanted: list[int] = []
        for face in self._faces():
            for message in await face.session.offers.find(message_id):
                rows = await face.session.offers.of_message(message.number, self.agent)
                wanted += [row.id for row in rows if row.confirmed_at is None]
        await self.confirm(wanted, "replied")

    async def withdraw(self, offers: Sequence[int]) -> None:
        """These were surely not shown: another way may offer them."""
        for face in self._faces()[:1]:
            await face.session.offers.withdraw(self.agent, offers)
        self._forget_offers(offers)
        self._registry.changed()

    async def doubtful(self) -> list[OfferRow]:
        """Offers of which nobody knows whether they were shown: not made again, unless the session asks."""
        return [row for row in await self._open_rows() if self._is_doubtful(row)]

    async def waiting(self) -> Waiting:
        """How many unread messages there are for this session, held ones left out."""
        now = next_ = low = 0
        for face in self._faces():
            for one in await face.session.offers.count(self._wanted("inbox")):
                now += one.rank == NOW and not one.is_ack
                next_ += one.rank == NEXT and not one.is_ack
                low += one.rank == LOW or one.is_ack
        return Waiting(now, next_, low, len(await self.doubtful()))

    # What others see

    def touch(self) -> None:
        """It does something."""
        self.active_at = time.monotonic()

    async def set_status(self, status: Status) -> None:
        """Say in presence whether it is `idle`, `busy` or `away`."""
        self.status_at = UnixMillis(time.time_ns() // 1_000_000)
        if status == self.status:
            return
        self.status = status
        for face in self._faces():
            with suppress(ClaudemeshError):  # without a link nobody is told; the next one begins with what holds then
                await face.session.set_status(status)
        self._registry.changed()

    async def set_reach(self, reach: Reach) -> None:
        """Tell the other peers how a message reaches this session."""
        await self.describe(reach=reach)

    async def set_dnd(self, on: bool) -> None:
        """Whether only `now` of peers that were granted it may reach the session without its asking."""
        self.is_dnd = on
        self._registry.changed()

    async def describe(
        self, about: str | None = None, tags: Iterable[str] | None = None, reach: Reach | None = None
    ) -> None:
        """Tell the other peers what it works at, what it is good for, how it is reached; None leaves a thing as it is.

        Raises:
            UsageError: One of them cannot be told.
            LocalError: `credential`; nothing was told. Whoever talks an agent out of one need not ask for a message.
        """
        told = tuple(tags) if tags is not None else None
        await require_no_credentials("\n".join((about or "", *(told or ()))))
        for face in self._faces():
            face.session.describe(reach=reach, about=about, tags=told)
        before = self.told()
        self.about = self.about if about is None else about
        self.tags = self.tags if told is None else told
        self.reach = self.reach if reach is None else reach
        for face in self._faces() if self.told() != before else ():
            await face.session.offers.begin(self.agent, self.told())
        self._registry.changed()

    # What happens

    async def news(self) -> AsyncIterator[News]:
        """What waits now, and again whenever that changes, until the session is closed."""
        bell, last = asyncio.Event(), None
        self._bells.add(bell)
        try:
            while self.is_open:
                bell.clear()
                state, looked_at = await self._news(), time.monotonic()
                if state != last:
                    last = state
                    yield state
                await bell.wait()
                await asyncio.sleep(max(0.0, looked_at + NEWS_PAUSE_S - time.monotonic()))
        finally:
            self._bells.discard(bell)

    def ring(self) -> None:
        """Something may have changed."""
        for bell in self._bells:
            bell.set()

    async def leave(self) -> None:
        """Leave presence; what was shown stays recorded."""
        self.is_open = False
        self.ring()
        for _, stack in list(self.faces.values()):
            with suppress(ClaudemeshError):
                await stack.aclose()
        self.faces.clear()

    async def rename(self, host: str, key: str) -> None:
        """Go by the host's own id from now on: what was shown stays shown."""
        before = self.agent
        self.host, self.key = host, key
        for face in self._faces():
            await face.session.offers.move(before, self.agent)
            await face.session.offers.begin(self.agent, self.told())

    # Private

    def _faces(self) -> list[Face]:
        return [face for face, _ in self.faces.values()]

    def _wanted(self, moment: Moment) -> Wanted:
        showing = shown_at(moment, is_dnd=self.is_dnd)
        return Wanted(self.agent, self.label, tuple(self._registry.others_of(self)), showing.rank, showing.acks)

    def _prompted(self) -> None:
        """Its user spoke to it, unless the prompt is what a wake makes."""
        for face in self._faces() if not self._is_woken else ():
            face.session.begin_turn()
        self._is_woken = False

    async def _open_rows(self) -> list[OfferRow]:
        return [row for face in self._faces() for row in await face.session.offers.open_offers(self.agent)]

    def _is_doubtful(self, row: OfferRow) -> bool:
        offered_at = self._offered_at.get(row.id)
        in_flight = offered_at is not None and time.monotonic() - offered_at < DOUBT_AFTER_S
        return row.evidence == IN_DOUBT or (row.handed_at is None and not in_flight)

    def _note_offers(self, taken: Taken) -> None:
        self.touch()
        self.told_at = None
        self._offered_at.update(dict.fromkeys(taken.ids, self.active_at))

    def _forget_offers(self, offers: Iterable[int]) -> None:
        for offer in offers:
            self._offered_at.pop(offer, None)

    async def _news(self) -> News:
        waiting = await self.waiting()
        urgent = waiting.now if self.is_dnd else waiting.now + waiting.next
        is_free = self.status != "busy"
        wakes = is_free and bool(urgent) and (await self._is_addressed() or self._registry.is_nominated(self))
        if wakes and self.told_at is None:
            self.told_at = time.monotonic()
        return News(waiting, bool(waiting.now), wakes)

    async def _is_addressed(self) -> bool:
        for face in self._faces():
            if any(one.is_addressed for one in await face.session.offers.count(self._wanted("idle_wake"))):
                return True
        return False


def status_of(text: str) -> Status:
    """A status as it was given; raises `UsageError`."""
    if text not in ("idle", "busy", "away"):
        raise UsageError("usage", "a session is idle, busy or away")
    return cast(Status, text)


def _word(text: str) -> str:
    if not _WORD.match(text):
        raise UsageError("usage", "an adapter or a kind of evidence is one plain word in small letters")
    return text
