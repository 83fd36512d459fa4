"""What the broker pushes: judged in batches, recorded in one commit each, and only then acknowledged.

An envelope that cannot be judged yet (its attestation, a proof or its time is missing) stays unacknowledged:
the broker keeps it, and hands it out again on the next link. At most `MAX_HELD` are kept in memory so;
what exceeds that is refused with `too_early`. A post whose epoch is missing is parked in the journal instead,
since the broker may wait long for a member to repair that.
"""

import asyncio
from collections import Counter, deque
from contextlib import suppress
from typing import Final

import msgspec

from claudemesh.errors import Malformed, Refused, RosterConflict
from claudemesh.peer import events
from claudemesh.peer.batch import Batch, Outcomes
from claudemesh.peer.cards import CardDirectory
from claudemesh.peer.contents import Nack, Profile
from claudemesh.peer.epochs import Epochs
from claudemesh.peer.events import Hub
from claudemesh.peer.journal import Journal, channels, keys
from claudemesh.peer.journal import epochs as epoch_rows
from claudemesh.peer.journal.channels import ChannelWindowRow
from claudemesh.peer.journal.keys import WindowRow
from claudemesh.peer.judging import Judge, Round
from claudemesh.peer.line import Line
from claudemesh.peer.membership import Membership
from claudemesh.peer.receiving import Forked, Held, Missing
from claudemesh.peer.recording import record_batch
from claudemesh.peer.repairing import Repairs
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.tracking import Tracker
from claudemesh.protocol import limits
from claudemesh.protocol.messages import Ack, Delivery, Push
from claudemesh.types import BrokerId, Digest, PeerId, UnixMillis

MAX_HELD: Final = 64
MAX_QUEUED_DELIVERIES: Final = 8 * limits.MAX_UNACKNOWLEDGED_PUSHES
"""What a link may have waiting here: the leases of an honest broker, and the parked posts of the epochs that came."""
DRAIN_TIMEOUT_S: Final = 10.0
DRAIN_IDLE_S: Final = 1.0
OPEN_BATCH: Final = 32
"""Envelopes opened (about 150 µs each) before other tasks get a turn."""


class Incoming:
    """Receives for one peer, on one link after another."""

    def __init__(
        self,
        judge: Judge,
        epochs: Epochs,
        repairs: Repairs,
        membership: Membership,
        cards: CardDirectory,
        journal: Journal,
        tracker: Tracker,
        hub: Hub,
        runtime: Runtime,
    ) -> None:
        self._judge = judge
        self._epochs = epochs
        self._repairs = repairs
        self._membership = membership
        self._cards = cards
        self._journal = journal
        self._tracker = tracker
        self._hub = hub
        self._runtime = runtime
        self.reactions = judge.reactions
        self._unlocked: set[Digest] = set()
        """Epochs that have come, for which posts may be parked."""
        self._unparking: set[Digest] = set()
        """Epochs whose parked posts are being judged."""
        self._expected = 0
        self._drained = asyncio.Event()
        self._arrived: deque[Delivery] = deque()
        self._waiting: list[tuple[Delivery, Held]] = []
        self._unattested: list[Delivery] = []
        self._confirming = False
        self._wake = asyncio.Event()

    async def load(self) -> None:
        """Read the replay windows from the journal, and for which epochs posts are parked."""
        mesh = self._membership.mesh
        rows = await self._journal.read(lambda connection: keys.load_windows(connection, mesh))
        self._judge.windows = {row.session: row.window for row in rows}
        streams = await self._journal.read(lambda connection: channels.load_windows(connection, mesh))
        self._judge.channel_windows = {(row.session, row.channel): row.window for row in streams}
        waiting = await self._journal.read(lambda connection: epoch_rows.parked_epochs(connection, mesh))
        self._unlocked = {epoch for epoch in waiting if self._epochs.find(epoch) is not None}
        await self._count_parked()

    def begin_link(self, broker: BrokerId) -> None:
        """A new link to `broker`, which hands out again what was not acknowledged."""
        self._judge.broker = broker
        self._unlocked |= self._unparking
        self._unparking.clear()
        self._arrived.clear()
        self._waiting.clear()
        self._unattested.clear()
        self._drained.clear()

    def expect(self, queued: int) -> None:
        """The broker held so many deliveries for this peer when the link opened."""
        self._expected = queued
        if queued <= 0:
            self._drained.set()

    async def drained(self) -> None:
        """Wait until what the broker held for this peer was judged, or stops coming; never for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                while not self._drained.is_set():
                    expected = self._expected
                    with suppress(TimeoutError):
                        async with asyncio.timeout(DRAIN_IDLE_S):
                            await self._drained.wait()
                    if self._expected == expected and not self._arrived:
                        return  # the rest is scheduled for later, or lies on another link

    def unlock(self, epoch: Digest) -> None:
        """An epoch has come: what is parked for it is judged."""
        self._unlocked.add(epoch)
        self._wake.set()

    def take_push(self, push: Push) -> None:
        """Queue what was pushed.

        Raises:
            Malformed: `too_large`; the broker pushes far more than it may lease to a link, which is given up.
        """
        queued = len(self._arrived) + len(self._waiting) + len(self._unattested) + len(push.d)
        if queued > MAX_QUEUED_DELIVERIES:
            raise Malformed("too_large", f"{queued} deliveries without an acknowledgement")
        for statement in push.atts:
            self._judge.take_attestation(statement)
        if push.atts and self._unattested:
            self._arrived.extend(self._unattested)
            self._unattested.clear()
        self._arrived.extend(push.d)
        self._wake.set()

    async def run(self, line: Line) -> None:
        """Judge, record and acknowledge on one open link, until it ends."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._release_due()
                if self._unlocked:
                    await self._unpark()
                if not self._arrived:
                    await self._sleep()
                    continue
                deliveries = self._next_batch()
                outcome = await self._judge_all(line, deliveries)
                await self._record(outcome)
                for start in range(0, len(outcome.acknowledged), limits.MAX_UNACKNOWLEDGED_PUSHES):
                    await line.post(Ack(q=outcome.acknowledged[start : start + limits.MAX_UNACKNOWLEDGED_PUSHES]))
                self._keep(line, group, outcome)
                self._count_down(len(deliveries))

    def _next_batch(self) -> list[Delivery]:
        """The next deliveries in their order. It ends after epochs: they are durable before a post needs them."""
        batch: list[Delivery] = []
        while self._arrived and len(batch) < limits.MAX_UNACKNOWLEDGED_PUSHES:
            if batch and batch[-1].ep and not self._arrived[0].ep:
                break
            batch.append(self._arrived.popleft())
        return batch

    def _count_down(self, judged: int) -> None:
        self._expected -= judged
        if self._expected <= 0:
            self._drained.set()

    # Judging

    async def _judge_all(self, line: Line, deliveries: list[Delivery]) -> Round:
        """Judge a batch in its order; once more from the start when something had to be fetched for it."""
        synced = cards_fetched = False
        while True:
            current, room = Round(), MAX_HELD - len(self._waiting)
            for index, delivery in enumerate(deliveries):
                self._judge.judge(delivery, current, synced=synced, cards_fetched=cards_fetched, room_to_hold=room)
                if index % OPEN_BATCH == OPEN_BATCH - 1:
                    await asyncio.sleep(0)
            if current.behind and not synced:
                synced = True
                await self._catch_up(line)
            elif current.unknown_cards and not cards_fetched:
                cards_fetched = True
                await self._fetch_cards(line, current.unknown_cards)
            else:
                return current

    async def _catch_up(self, line: Line) -> None:
        with suppress(RosterConflict):  # frozen now; what this replica can vouch for is still received
            await self._membership.catch_up(line)

    async def _fetch_cards(self, line: Line, members: set[PeerId]) -> None:
        with suppress(Refused):  # judged without: a card that the broker keeps back cannot end a session
            await self._cards.refresh(line, members)

    # Recording

    async def _record(self, outcome: Round) -> None:
        """Commit a round; in memory nothing moves before the commit."""
        batch, mesh, now = outcome.batch, self._membership.mesh, self._runtime.now()
        if batch.is_empty:
            return
        expiry = {one.message.session: one.message.attestation.expires_at for one in batch.judged}
        batch.windows = [
            WindowRow(session, window, UnixMillis(expiry[session] + limits.REPLAY_STATE_GRACE_MS))
            for session, window in outcome.windows.items()
        ]
        batch.channel_windows = [
            ChannelWindowRow(session, channel, window, UnixMillis(expiry[session] + limits.REPLAY_STATE_GRACE_MS))
            for (session, channel), window in outcome.channel_windows.items()
        ]
        members = self._membership.roster.members
        users = {one.message.sender: members[one.message.sender].user for one in batch.judged}
        self.reactions.hold(batch, now)
        try:
            outcomes = await self._journal.write(
                lambda connection: record_batch(connection, mesh, batch, users, now), brief=batch.is_brief
            )
        except BaseException:
            self.reactions.unhold(now)
            raise
        self._judge.settle(outcome)
        if batch.unparked:
            await self._count_parked()
        self._react(outcome, outcomes)

    def announce(self, outcomes: Outcomes) -> None:
        """Tell who reads and waits what is durable in the inbox now."""
        self._tracker.record(outcomes.recorded)
        for arrived in outcomes.arrived:
            self._hub.publish(arrived)
            if arrived.reply_to is not None:
                self._tracker.touch(arrived.reply_to)
        if outcomes.arrived:
            self._tracker.touch_inbox()

    def _react(self, outcome: Round, outcomes: Outcomes) -> None:
        self.announce(outcomes)
        for held in outcomes.held:
            self._hub.publish(held)
        for refused in outcomes.refused:
            self._hub.publish(refused)
        for (sender, channel), missing in outcome.gaps.items():
            self._hub.publish(events.GapNoticed(sender, missing, channel))
        for sender, profile in outcomes.profiles:
            self.reactions.profile_arrived(sender, profile)
        self._settle_channels(outcome.batch)
        if outcomes.receipts_due:
            self.reactions.receipts_due()
        if outcomes.outbox_changed:
            self.reactions.outbox_changed()

    def _settle_channels(self, batch: Batch) -> None:
        for statement in batch.wanted:
            self._repairs.want(statement)
        for unopened in batch.unopened:
            if unopened.nack is not None:
                self._repairs.asked(PeerId(unopened.sender), unopened.message_id)
        for draft, question in batch.parked:
            self._repairs.asked(question.peer, draft.epoch)
        for taken in batch.epochs:
            self._epochs.hold(taken.held)
        for judged in batch.judged:
            if not isinstance(judged.content, str | list | Nack | Profile):
                judged.content.settle()

    async def _unpark(self) -> None:
        """Judge the posts whose epochs have come, as if they were delivered now."""
        epochs, self._unlocked = self._unlocked, set()
        self._unparking |= epochs
        mesh = self._membership.mesh
        parked = await self._journal.read(lambda connection: epoch_rows.load_parked(connection, mesh, epochs))
        for post in parked:
            self._judge.take_attestation(post.attestation)
            self._arrived.append(Delivery(q=-post.id, at=post.accepted_at, e=msgspec.Raw(post.frame)))

    async def _count_parked(self) -> None:
        mesh = self._membership.mesh
        parked = await self._journal.read(lambda connection: epoch_rows.count_parked(connection, mesh))
        self._judge.parked = Counter(parked)

    # Holding

    def _keep(self, line: Line, group: asyncio.TaskGroup, outcome: Round) -> None:
        """Hold what cannot be judged yet, and look for what it lacks."""
        self._unattested += outcome.unattested
        for fork in outcome.forks:
            group.create_task(self._freeze(fork))
        for delivery, held in outcome.held:
            self._waiting.append((delivery, held))
            if held.missing is Missing.PROOF and not self._confirming:
                group.create_task(self._confirm(line, held))

    async def _freeze(self, fork: Forked) -> None:
        with suppress(RosterConflict):  # the event says it to everybody; the link stays, to receive
            await self._membership.freeze_by_claim("fork", fork.claim, fork.sender)

    async def _confirm(self, line: Line, held: Held) -> None:
        assert held.claim is not None
        self._confirming = True
        try:
            with suppress(RosterConflict):
                await self._membership.confirm_withheld(line, held.claim, held.sender)
        finally:
            self._confirming = False
        self._wake.set()

    def _release_due(self) -> None:
        """Judge again what may be judged now."""
        now, roster = self._runtime.now(), self._membership.roster
        kept = []
        for delivery, held in self._waiting:
            due = held.due_at is not None and held.due_at <= now
            caught_up = held.claim is not None and roster.seq >= held.claim.seq
            if due or caught_up:
                self._arrived.append(delivery)
            else:
                kept.append((delivery, held))
        self._waiting = kept

    async def _sleep(self) -> None:
        self._wake.clear()
        dues = [held.due_at for _, held in self._waiting if held.due_at is not None]
        wait_s = None if not dues else max(min(dues) - self._runtime.now(), 1) / 1000
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
