"""One test's world: a hostile broker, a mesh whose owner is played by hand, and victims that are real peers.

A victim joins through a link over a real socket. What it believed is read from what it surfaces and from its
journal on disk, not from its memory.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec

from claudemesh.crypto.invite import InviteLink
from claudemesh.errors import ClaudemeshError
from claudemesh.peer import Peer, Runtime
from claudemesh.peer.events import EnvelopeRefused, GapNoticed, LinkDown
from claudemesh.protocol import messages
from claudemesh.protocol.limits import DAY_MS
from claudemesh.protocol.roster import Entry, Roster
from claudemesh.types import PeerId
from tests.attacks.clock import Clock, eventually
from tests.attacks.hostile_broker import HostileBroker
from tests.attacks.hostile_store import HeldMesh
from tests.attacks.real_peers import TEMPO, join
from tests.attacks.wire_member import Letter, WireMember


@dataclass(frozen=True)
class Outcome:
    """What came of an attack."""

    succeeded: bool
    codes: frozenset[str]
    """With which the victim, or every verifier, refused."""


class Victim:
    """A real peer with its own configuration directory, and what can be seen of it from outside."""

    def __init__(self, name: str, directory: Path, runtime: Runtime) -> None:
        self.name = name
        self.directory = directory
        self.runtime = runtime
        self.received: list[Any] = []
        self.events: list[Any] = []
        self.peer: Peer
        self.id: PeerId
        self._stack = AsyncExitStack()

    async def start(self) -> Self:
        """Open the peer and collect what it surfaces."""
        self._stack = AsyncExitStack()
        self.peer = await self._stack.enter_async_context(Peer.open(self.directory, runtime=self.runtime))
        self.id = PeerId(self.keys["peer"]["sign"])
        for watcher in (self._read(), self._watch()):
            self._stack.callback(asyncio.create_task(watcher).cancel)
        return self

    async def stop(self) -> None:
        await self._stack.aclose()

    async def restarted(self, *statements: str) -> Self:
        """Stop, change the journal on disk, start again, forgetting what was surfaced before."""
        await self.stop()
        with closing(sqlite3.connect(self.directory / "state.db")) as journal:
            for statement in statements:
                journal.execute(statement)
            journal.commit()
        self.received.clear()
        return await self.start()

    async def _read(self) -> None:
        async for message in self.peer.messages():
            self.received.append(message)

    async def _watch(self) -> None:
        async for event in self.peer.events():
            self.events.append(event)

    # What it believes

    @property
    def texts(self) -> list[str]:
        return [message.text for message in self.received]

    def message(self, text: str) -> Any:
        return next((message for message in self.received if message.text == text), None)

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Read from the journal on disk."""
        with closing(sqlite3.connect(f"file:{self.directory / 'state.db'}?mode=ro", uri=True)) as journal:
            return journal.execute(query, arguments).fetchall()

    @property
    def codes(self) -> frozenset[str]:
        """The codes of everything that it refused: envelopes on disk, attestations and cards as events."""
        refused = {event.code for event in self.events if isinstance(event, EnvelopeRefused)}
        return frozenset(refused | {code for (code,) in self.rows("SELECT DISTINCT code FROM quarantine")})

    @property
    def link_errors(self) -> list[str]:
        """Why its links ended or were not opened, in order."""
        return [event.code for event in self.events if isinstance(event, LinkDown)]

    @property
    def gaps(self) -> list[int]:
        """How many messages were reported missing, each time that some were."""
        return [event.missing for event in self.events if isinstance(event, GapNoticed)]

    @property
    def freeze(self) -> str | None:
        """Why it has stopped to send, or None."""
        found = self.rows("SELECT code FROM freezes")
        return found[0][0] if found else None

    @property
    def proof(self) -> bytes:
        """What it keeps against the broker."""
        return bytes(self.rows("SELECT proof FROM freezes")[0][0])

    def roster(self) -> Roster:
        """The roster that it has stored."""
        rows = self.rows("SELECT entry FROM roster_entries ORDER BY seq")
        return Roster.restore(msgspec.json.decode(entry, type=Entry) for (entry,) in rows)

    async def surfaced(self) -> None:
        """Wait until its reader was handed everything that is in the inbox."""
        query = "SELECT count(*) FROM inbox WHERE seen_at IS NULL"
        await eventually(lambda: self.rows(query)[0][0] == 0, f"{self.name} surfaces its inbox")
        await asyncio.sleep(0.02)  # marked as seen, it is on its way to the reader

    async def settled(self) -> None:
        """Wait until everything in its outbox was answered."""
        query = "SELECT count(*) FROM outbox WHERE state IN ('queued', 'sealed')"
        await eventually(lambda: self.rows(query)[0][0] == 0, f"{self.name} has sent everything")

    async def reaches(self, seq: int) -> None:
        """Wait until its roster is that long."""
        await eventually(lambda: self.has_reached(seq), f"{self.name} reaches entry {seq}")

    def has_reached(self, seq: int) -> bool:
        """Whether its roster is that long."""
        reached = self.rows("SELECT max(seq) FROM roster_entries")[0][0]
        return reached is not None and reached >= seq

    async def shows(self, seq: int) -> None:
        """Wait until what it writes shows a head that is as long: in memory it is that a moment after the journal."""

        def head_is_there() -> bool:
            head = self.peer._parts.membership.head
            return head is not None and head.seq >= seq

        await eventually(head_is_there, f"{self.name} shows the head of entry {seq}")

    async def rotated_to(self, number: int) -> None:
        """Wait until its box key is that of card `number`."""
        await eventually(lambda: self.keys["peer"]["boxes"][0]["cs"] == number, f"{self.name} rotates its box key")

    # What a thief of its device finds

    @property
    def keys(self) -> dict[str, Any]:
        config: dict[str, Any] = msgspec.json.decode((self.directory / "config.json").read_bytes())
        keys: dict[str, Any] = config["meshes"][0]
        return keys

    @property
    def kid(self) -> str:
        """Its current box key."""
        return str(self.keys["peer"]["boxes"][0]["box"])

    @property
    def box_secret(self) -> bytes:
        return self.box_secrets()[0]

    def box_secrets(self) -> list[bytes]:
        return [bytes.fromhex(box["box_sk"]) for box in self.keys["peer"]["boxes"]]


class World:
    """A mesh of the hostile broker, and everybody in it."""

    def __init__(self, broker: HostileBroker, directory: Path, recovery: str | None) -> None:
        self.broker = broker
        self.clock = broker.clock
        self.directory = directory
        self.runtime = Runtime(now=self.clock, uptime=self.clock, tempo=TEMPO)
        self.victims: list[Victim] = []
        self.owner = WireMember("alice", self.clock)
        self.held: HeldMesh = broker.hold([self.owner.genesis(broker.key.public, recovery)])
        self.owner.follow(*self.held.main.entries)
        self.show_head(self.owner)

    # Members

    async def victim(self, name: str) -> Victim:
        """A real peer, joined through a link of the owner and connected."""
        victim = Victim(name, self.directory / name, self.runtime)
        link = await self.invite()
        await join(victim.directory, link.text(), self.runtime, name=name)
        self._owner_follows()
        self.victims.append(await victim.start())
        await self.broker.connected(victim.id)
        await victim.reaches(self.held.main.seq)
        return victim

    def member(self, name: str) -> WireMember:
        """A member that is played by hand, admitted through a link of the owner."""
        member, link = WireMember(name, self.clock), self.owner.new_link(self.broker.url)
        self._append(self.owner.invite(link))
        self.admit(member, link)
        self.show_head(member)
        return member

    def admit(self, member: WireMember, link: InviteLink, by_user: bool = True) -> None:
        """Let a member join by hand; it is announced with the next entries."""
        self._append(member.admission_on(self.held.main.roster, link.invite_key(), by_user))
        member.follow(*self.held.main.entries)

    async def invite(self, uses: int = 1, ttl_ms: int = DAY_MS) -> InviteLink:
        """A link of the owner."""
        link = self.owner.new_link(self.broker.url)
        await self.extend(self.owner.invite(link, uses=uses, ttl_ms=ttl_ms))
        return link

    async def try_to_join(self, name: str, link: str) -> str:
        """Join as a real peer; returns the code of the refusal, or "" when it got in."""
        try:
            await join(self.directory / name, link, self.runtime, name=name)
        except ClaudemeshError as error:
            return error.code
        return ""

    def show_head(self, member: WireMember) -> None:
        """Let a member's headers carry the broker's signature on its own head."""
        view = self.held.main.copy(member.roster.seq + 1)
        member.take_head(view.signed_head(self.broker.key, self.clock()))

    # The log

    async def extend(self, *entries: Entry) -> None:
        """Append entries as an honest broker does, and announce them."""
        self._append(*entries)
        self._owner_follows()
        await self.announce()

    async def announce(self) -> None:
        """Push the log to everybody, and wait until those who are shown the main history have it."""
        await self.broker.announce(self.held)
        for victim in self.victims:
            if victim.id not in self.held.views and victim.freeze is None:
                await victim.reaches(self.held.main.seq)

    async def show_forged(self, victim: Victim, *entries: Entry) -> None:
        """Store entries unchecked, show them to `victim` with a valid head, let it dial again, and take them back."""
        honest = self.held.main
        forged = honest.copy()
        forged.force(*entries)
        self.held.views[victim.id] = forged
        await self.broker.announce(self.held)
        before = len(self.broker.heard(messages.Hello))
        await self.broker.drop_links(victim.id)

        def has_judged() -> bool:
            """It took them; or hung up and dialled a second time; or sends nothing more."""
            hellos = len(self.broker.heard(messages.Hello)) - before
            return hellos > 1 or victim.has_reached(forged.seq) or victim.freeze is not None

        await self.chance(has_judged, 5.0)
        del self.held.views[victim.id]
        await self.broker.drop_links(victim.id)

    def _append(self, *entries: Entry) -> None:
        for entry in entries:
            self.held.main.append(entry)
        self._owner_follows()

    def _owner_follows(self) -> None:
        if self.held.main.roster.is_active(self.owner.id):
            self.owner.follow(*self.held.main.entries[self.owner.roster.seq + 1 :])
            self.show_head(self.owner)

    # Mail

    async def deliver(self, victim: Victim, *letters: Letter, checked: bool = True) -> None:
        """Push letters to a victim; with `checked`, wait until it has said that it is done with them."""
        attestations = [letter.attestation for letter in letters]
        numbers = await self.broker.push(victim.id, *[letter.frame for letter in letters], attestations=attestations)
        if checked:
            await self.broker.acknowledged(victim.id, *numbers)
            await victim.surfaced()

    async def probe(self, victim: Victim) -> None:
        """Send an honest message and wait for it: the victim is alive and has passed everything before."""
        await self.deliver(victim, self.owner.write(victim.id, victim.kid, "probe"))
        await self.until(lambda: "probe" in victim.texts, f"{victim.name} surfaces an honest message")

    async def carry(self, sender: Victim, recipient: Victim) -> None:
        """Deliver everything that `sender` wrote to `recipient` and the broker kept back."""
        rows = await self.until(
            lambda: [row for row in self.held.mail.of(recipient.id) if row.envelope and row.send.sender == sender.id],
            f"{sender.name} hands over a message",
        )
        await self.broker.push(recipient.id, *rows)

    # Waiting

    async def until(self, condition: Callable[[], Any], what: str) -> Any:
        return await eventually(condition, what)

    async def settles(self, victim: Victim, within_s: float = 4 * TEMPO.withheld_window_ms / 1_000 + 1) -> None:
        """Wait until the victim has frozen the mesh, or for as long as it retries before it does."""
        await self.chance(lambda: victim.freeze, within_s)

    async def chance(self, condition: Callable[[], Any], within_s: float) -> None:
        """Wait for something that may happen or not."""
        with suppress(AssertionError):
            await eventually(condition, "it may", within_s)

    async def close(self) -> None:
        for victim in self.victims:
            await victim.stop()


@asynccontextmanager
async def world(directory: Path, recovery: str | None = None) -> AsyncIterator[World]:
    """A world for one test."""
    async with HostileBroker.listening(Clock()) as broker:
        made = World(broker, directory, recovery)
        try:
            yield made
        finally:
            await made.close()


def fresh(directory: Path) -> Path:
    """A directory of its own, for a second world in one test."""
    return directory / os.urandom(4).hex()
