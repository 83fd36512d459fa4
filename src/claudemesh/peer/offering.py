"""What is put before an agent's session, as the journal has it, and the receipts that follow (docs/spec/surfacing.md).

A part of a message is offered once to an agent's session: the row is durable before the text leaves this module. What
became of it is stated by whoever has the evidence; without any, nothing is stated.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from claudemesh.peer.journal import inbox, offers
from claudemesh.peer.journal.inbox import InboxRow, ReceiptDue
from claudemesh.peer.journal.offers import OfferDraft, Offerer, OfferRow, Told, WaitingRow, Wanted
from claudemesh.peer.journal.outbox import RANKS
from claudemesh.peer.parts import Parts
from claudemesh.peer.views import Received
from claudemesh.protocol import limits
from claudemesh.protocol.confirmation import is_confirmed
from claudemesh.protocol.delivery import Stage
from claudemesh.types import ChannelId, SessionId, UnixMillis

MAX_COUNTED: Final = 1_000
_FORGET_AFTER_MS: Final = 60 * limits.DAY_MS

Show = Callable[[InboxRow], Received]


class OfferBook:
    """The offers of one session of a peer."""

    def __init__(self, parts: Parts, session: SessionId, show: Show) -> None:
        self._parts = parts
        self._session = session
        self._show = show

    async def begin(self, agent: str, told: Told) -> None:
        """Remember which agent speaks as this session and what was told of it: after a restart it goes on like that."""
        mesh, now = self._parts.mesh, self._parts.runtime.now()

        def write(connection: sqlite3.Connection) -> None:
            offers.drop_old(connection, mesh, UnixMillis(now - _FORGET_AFTER_MS))
            offers.note_session(connection, mesh, self._session, agent, told, now)

        await self._parts.journal.write(write)

    async def move(self, before: str, after: str) -> None:
        """The agent goes by another name: what it was shown stays shown."""
        mesh = self._parts.mesh
        await self._parts.journal.write(lambda connection: offers.move_agent(connection, mesh, before, after))

    async def waiting(self, wanted: Wanted, limit: int) -> list[Received]:
        """Messages that may be put before the agent, the most urgent and oldest first; expired ones end here.

        None in a paused mesh, and where agents are not to be disturbed only `now`, unless the agent asks for all.
        """
        mesh, now, quiet = self._parts.mesh, self._parts.runtime.now(), self._parts.holding.quiet
        if quiet.paused_since:
            return []
        if quiet.dnd_since and wanted.rank < RANKS["low"]:
            wanted = wanted._replace(rank=RANKS["now"], acks=False)

        def read(connection: sqlite3.Connection) -> list[InboxRow]:
            found = (
                inbox.find_row(connection, mesh, one.id) for one in offers.find_waiting(connection, mesh, wanted, limit)
            )
            return [row for row in found if row is not None]

        rows = [row for row in await self._parts.journal.read(read) if row.reply_to not in self._parts.tracker.asked]
        found = [self._show(row) for row in rows]
        late = [one.number for one in found if one.expires_at is not None and one.expires_at < now]
        if late:
            await self._expire([row for row in rows if row.id in late])
        return [one for one in found if one.number not in late]

    async def count(self, wanted: Wanted) -> list[WaitingRow]:
        """What waits, without its text, and as urgent as it may be now; at most `MAX_COUNTED`."""
        mesh, quiet = self._parts.mesh, self._parts.holding.quiet
        if quiet.paused_since:
            return []
        rows = await self._parts.journal.read(lambda c: offers.find_waiting(c, mesh, wanted, MAX_COUNTED))
        if not quiet.dnd_since:
            return rows
        quieted = (one if one.rank == RANKS["now"] else one._replace(rank=RANKS["low"]) for one in rows)
        return [one for one in quieted if one.rank <= wanted.rank]

    async def find(self, message_id: str) -> list[Received]:
        """The received messages with this id."""
        mesh = self._parts.mesh
        rows = await self._parts.journal.read(lambda connection: inbox.find(connection, mesh, message_id))
        return [self._show(row) for row in rows]

    async def load(self, numbers: Iterable[int]) -> list[Received]:
        """Messages by their row numbers; one that is not kept any more is left out."""
        mesh, wanted = self._parts.mesh, list(numbers)
        rows = await self._parts.journal.read(lambda c: [inbox.find_row(c, mesh, number) for number in wanted])
        return [self._show(row) for row in rows if row is not None]

    async def offer(self, offerer: Offerer, drafts: Sequence[OfferDraft], replaced: Sequence[int] = ()) -> list[int]:
        """Record parts that are about to be handed over; nothing is stated to anybody yet.

        Args:
            replaced: Earlier offers that left no sign, and that these stand for.

        Returns:
            The number of each, or 0 for a part that this agent's session was given before; in a paused mesh for all.
        """
        mesh, now = self._parts.mesh, self._parts.runtime.now()
        if self._parts.holding.quiet.paused_since:
            return [0] * len(drafts)

        def write(connection: sqlite3.Connection) -> list[int]:
            offers.withdraw(connection, offerer.agent, replaced, now)
            return offers.add(connection, mesh, offerer, drafts, now)

        return await self._parts.journal.write(write)

    async def hand(self, agent: str, numbers: Sequence[int]) -> None:
        """The host has these: state `offered`."""
        now = self._parts.runtime.now()
        await self._parts.journal.write(lambda connection: self._hand(connection, agent, numbers, now))
        self._parts.receipts.wake()

    async def confirm(self, agent: str, numbers: Sequence[int], evidence: str) -> None:
        """These are in the model's context; of each message that is there as a whole this session states `read`."""
        mesh, now, session = self._parts.mesh, self._parts.runtime.now(), self._session

        def write(connection: sqlite3.Connection) -> None:
            self._hand(connection, agent, numbers, now)
            for number, adapter in offers.confirm(connection, mesh, agent, session, numbers, evidence, now):
                inbox.mark_seen(connection, [number], now)
                self._owe(connection, number, Stage.READ, session, adapter, now)

        await self._parts.journal.write(write)
        self._parts.receipts.wake()

    async def withdraw(self, agent: str, numbers: Sequence[int]) -> None:
        """These were surely not shown: another way may offer them."""
        now = self._parts.runtime.now()
        await self._parts.journal.write(lambda connection: offers.withdraw(connection, agent, numbers, now))

    async def doubt(self, agent: str) -> None:
        """The host began anew before anything showed that it read what it was given."""
        mesh = self._parts.mesh
        await self._parts.journal.write(lambda connection: offers.doubt(connection, mesh, agent))

    async def open_offers(self, agent: str) -> list[OfferRow]:
        """Offers of which nobody knows yet whether they were shown."""
        mesh = self._parts.mesh
        return await self._parts.journal.read(lambda connection: offers.load_open(connection, mesh, agent))

    async def unfinished(self, agent: str) -> list[int]:
        """Row numbers of unread messages that the agent was given a part of, and not their end."""
        mesh = self._parts.mesh
        return await self._parts.journal.read(lambda connection: offers.find_unfinished(connection, mesh, agent))

    async def is_former(self, session: SessionId, agent: str, label: str) -> bool:
        """Whether an agent, or one that went by its label, once spoke under this key."""
        mesh = self._parts.mesh
        return await self._parts.journal.read(lambda c: offers.is_former(c, mesh, session, agent, label))

    async def of_message(self, number: int, agent: str = "") -> list[OfferRow]:
        """What was offered of one message."""
        return await self._parts.journal.read(lambda connection: offers.load_of_message(connection, number, agent))

    async def _expire(self, rows: Sequence[InboxRow]) -> None:
        """Their time is over: nobody is shown them any more, and their senders are told."""
        mesh, now = self._parts.mesh, self._parts.runtime.now()
        due = [
            ReceiptDue(row.sender, row.message_id, Stage.EXPIRED, now)
            for row in rows
            if self._is_receipted(row.channel, row.teller)
        ]

        def write(connection: sqlite3.Connection) -> None:
            inbox.mark_seen(connection, [row.id for row in rows], now)
            inbox.add_receipts_due(connection, mesh, due)

        await self._parts.journal.write(write)
        self._parts.receipts.wake()

    def _hand(self, connection: sqlite3.Connection, agent: str, numbers: Sequence[int], now: UnixMillis) -> None:
        for number, adapter in offers.mark_handed(connection, self._parts.mesh, agent, numbers, now):
            self._owe(connection, number, Stage.OFFERED, None, adapter, now)

    def _owe(
        self,
        connection: sqlite3.Connection,
        number: int,
        stage: Stage,
        session: SessionId | None,
        adapter: str,
        now: UnixMillis,
    ) -> None:
        """Owe a receipt in the transaction that makes it true."""
        row = inbox.find_row(connection, self._parts.mesh, number)
        if row is not None and self._is_receipted(row.channel, row.teller):
            due = ReceiptDue(row.sender, row.message_id, stage, now, session, adapter)
            inbox.add_receipts_due(connection, self._parts.mesh, [due])

    def _is_receipted(self, channel: ChannelId | None, shared_by: str | None) -> bool:
        """Whether its sender expects receipts: not of a post in a large channel, nor of one that another shared."""
        return not shared_by and (channel is None or is_confirmed(self._parts.membership.roster, channel))
