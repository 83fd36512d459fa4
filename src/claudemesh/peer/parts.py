"""Everything that makes up one peer of one mesh, and what it does for as long as it works."""

import asyncio
import sqlite3
from dataclasses import dataclass
from typing import Final

from claudemesh.peer.attesting import Attesting
from claudemesh.peer.auditing import Auditor
from claudemesh.peer.cards import CardDirectory
from claudemesh.peer.channel_parts import ChannelParts
from claudemesh.peer.events import Hub
from claudemesh.peer.expiring import Expirer
from claudemesh.peer.freshness import Freshness
from claudemesh.peer.grant_book import GrantBook
from claudemesh.peer.holding import Holding
from claudemesh.peer.incoming import Incoming
from claudemesh.peer.journal import Journal, handed_out, held, inbox, keys, outbox
from claudemesh.peer.journal import membership as membership_rows
from claudemesh.peer.keyring import Keyring
from claudemesh.peer.line import Connect, Line
from claudemesh.peer.membership import Membership
from claudemesh.peer.names import NameBook
from claudemesh.peer.outbox_writer import OutboxWriter
from claudemesh.peer.outgoing import Outgoing
from claudemesh.peer.overdue import close_overdue
from claudemesh.peer.presence import PresenceView
from claudemesh.peer.receipts import ReceiptSender
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.session import Sessions
from claudemesh.peer.tracking import Tracker
from claudemesh.peer.uplink import Uplink
from claudemesh.protocol import limits
from claudemesh.protocol.link import Opened
from claudemesh.types import BrokerId, MeshId, UnixMillis

_ALWAYS: Final = UnixMillis(0)


@dataclass(slots=True)
class Parts:
    """Everything that makes up one peer of one mesh."""

    journal: Journal
    runtime: Runtime
    connect: Connect
    hub: Hub
    keyring: Keyring
    membership: Membership
    sessions: Sessions
    attesting: Attesting
    cards: CardDirectory
    presence: PresenceView
    tracker: Tracker
    incoming: Incoming
    outbox: OutboxWriter
    outgoing: Outgoing
    names: NameBook
    grants: GrantBook
    holding: Holding
    receipts: ReceiptSender
    auditor: Auditor
    expirer: Expirer
    freshness: Freshness
    uplink: Uplink
    channels: ChannelParts
    remembered_since: UnixMillis = _ALWAYS
    """Of what was written before, this device may not know any more whether it was received."""

    @property
    def mesh(self) -> MeshId:
        return self.membership.mesh

    async def load(self) -> None:
        """Read everything that outlives the process from the journal."""
        await self._load_memory(lost=not await self.membership.load())
        await self.cards.load()
        await self.channels.load()
        await self.incoming.load()
        await self.names.load()
        await self.grants.load()
        await self.holding.load()
        await self.auditor.load()

    async def _load_memory(self, *, lost: bool) -> None:
        mesh, now = self.mesh, self.runtime.now()
        if lost:
            await self.journal.write(lambda connection: keys.note_loss(connection, mesh, now))
        self.remembered_since = await self.journal.read(lambda connection: keys.load_memory(connection, mesh))

    async def run(self) -> None:
        """Work until cancelled: the link, receipts, names, and what time brings."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.uplink.run())
            group.create_task(self.receipts.run())
            group.create_task(self.names.run())
            group.create_task(self.channels.directory.run())
            group.create_task(self.expirer.run())
            group.create_task(self._follow_roster())

    def save_progress(self) -> None:
        """Have the keystore remember how far the roster went and which broker it names."""
        if self.membership.roster.seq >= 0:
            self.keyring.save_progress(self.membership.pin, self.uplink.address())

    async def _follow_roster(self) -> None:
        while True:
            await self.membership.changed.wait()
            self.membership.changed.clear()
            self.names.announce()
            self.channels.roster_changed()
            self.uplink.roster_changed()
            self.outgoing.wake()

    async def on_link(self, opened: Opened, broker: BrokerId) -> None:
        """A link is synced: after a move or a loss, what the broker cannot have any more is submitted again."""
        mesh, now = self.mesh, self.runtime.now()
        moved = broker != self.keyring.keys.broker_id
        if moved:
            await self.journal.write(lambda connection: membership_rows.clear_audit_view(connection, mesh))
            self.auditor.forget()
        lost = not await self.auditor.begin_link(opened) or self.membership.gave_back
        if moved or lost:
            since = UnixMillis(now - limits.DAY_MS)
            await self.journal.write(lambda connection: outbox.requeue_undelivered(connection, mesh, now, since))
            await self.channels.submit_again()
        self.incoming.expect(opened.queued)
        self.membership.gave_back = False
        if broker == self.uplink.broker:
            self.save_progress()

    async def on_serve(self, line: Line) -> None:
        """What time brings while a link is open."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.auditor.run(line))
            group.create_task(self.channels.serve(line))
            while True:
                await self.keep_house(line)
                await asyncio.sleep(self.runtime.tempo.housekeeping_ms / 1000)

    async def keep_house(self, line: Line) -> None:
        """Renew what runs out, delete what may not be kept."""
        now = self.runtime.now()
        await self.attesting.renew_due(line)
        if self.keyring.rotation_due(now):
            self.keyring.rotate(now)
            await self.cards.publish(line)
        self.keyring.drop_superseded(now)
        self.freshness.look(now)
        await close_overdue(self.membership, self.keyring, line, now)
        self.save_progress()
        before = UnixMillis(now - limits.QUEUE_LIFETIME_MS)
        mesh = self.mesh

        def write(connection: sqlite3.Connection) -> bool:
            keys.drop_expired_windows(connection, mesh, now)
            outbox.purge_internal(connection, mesh, before)
            inbox.drop_old_nacks(connection, mesh, before)
            handed_out.drop_old(connection, mesh, before)
            return held.drop_overdue(connection, mesh, now, before)

        if await self.journal.write(write):
            self.receipts.wake()
        self.holding.keep_house()
        await self.channels.keep_house()
