"""What the broker pushes: judged in batches, recorded in one commit each, and only then acknowledged.

An envelope that cannot be judged yet (its attestation, a proof or its time is missing) stays unacknowledged:
the broker keeps it, and hands it out again on the next link. At most `MAX_HELD` are kept in memory so;
what exceeds that is refused with `too_early`. A post whose epoch is missing is parked in the journal instead,
since the broker may wait long for a member to repair that; at most `MAX_PARKED` are.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec

from claudemesh.crypto import identity, statements
from claudemesh.crypto.identity import Attestation
from claudemesh.crypto.statements import Statement
from claudemesh.errors import Invalid, Refused, RosterConflict
from claudemesh.peer import contents, events
from claudemesh.peer.cards import CardDirectory
from claudemesh.peer.channel_reading import is_confirmed
from claudemesh.peer.contents import Nack, Profile
from claudemesh.peer.epochs import SLOT_CODES, Epochs
from claudemesh.peer.events import Hub
from claudemesh.peer.grants import Allow, Refuse
from claudemesh.peer.journal import Journal, channels, keys
from claudemesh.peer.journal import epochs as epoch_rows
from claudemesh.peer.journal.channels import ChannelWindowRow
from claudemesh.peer.journal.epochs import ParkedDraft
from claudemesh.peer.journal.keys import WindowRow
from claudemesh.peer.journal.outbox import Draft
from claudemesh.peer.line import Line
from claudemesh.peer.membership import Membership
from claudemesh.peer.post_receiving import Keyless, PostInspector, Stream
from claudemesh.peer.receiving import Authentic, Forked, Held, Inspector, Missing, Repeated
from claudemesh.peer.recording import (
    Batch,
    Content,
    Judged,
    Outcomes,
    TakenEpoch,
    Unopened,
    read_content,
    read_notice,
    record_batch,
)
from claudemesh.peer.repairing import Repairs, topic_of
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.tracking import Tracker
from claudemesh.protocol import codec, limits, message_rules
from claudemesh.protocol.epochs import HeldEpoch
from claudemesh.protocol.messages import Ack, Delivery, Post, PublishedEpoch, Push, Send
from claudemesh.protocol.replay import ReplayWindow
from claudemesh.types import BrokerId, ChannelId, Digest, MessageId, PeerId, SessionId, UnixMillis

MAX_HELD: Final = 64
MAX_ATTESTATIONS: Final = 4_096
MAX_PARKED: Final = 1_000
MAX_PARKED_PER_SENDER: Final = 100
DRAIN_TIMEOUT_S: Final = 10.0
DRAIN_IDLE_S: Final = 1.0
OPEN_BATCH: Final = 32
"""Envelopes opened (about 150 µs each) before other tasks get a turn."""


Reading = Callable[[Authentic], Content]


@dataclass(slots=True)
class Reactions:
    """Whom to tell after a commit; set where the peer is composed."""

    receipts_due: Callable[[], None] = lambda: None
    outbox_changed: Callable[[], None] = lambda: None
    profile_arrived: Callable[[PeerId, Profile], None] = lambda _peer, _profile: None
    read: Reading = read_content
    """Reads the body of an authentic message."""
    permit: Callable[[Mapping[str, Any]], Allow | Refuse] = lambda header: Allow(header["prio"])
    """Decides by its header whether an authentic message is taken."""


Verdict = Authentic | Repeated | Held | Forked | Keyless | None


@dataclass(slots=True)
class _Round:
    """One pass over a batch."""

    batch: Batch = field(default_factory=Batch)
    acknowledged: list[int] = field(default_factory=list)
    held: list[tuple[Delivery, Held]] = field(default_factory=list)
    unattested: list[Delivery] = field(default_factory=list)
    forks: list[Forked] = field(default_factory=list)
    windows: dict[SessionId, ReplayWindow] = field(default_factory=dict)
    channel_windows: dict[Stream, ReplayWindow] = field(default_factory=dict)
    gaps: dict[tuple[PeerId, ChannelId | None], int] = field(default_factory=dict)
    unknown_cards: set[PeerId] = field(default_factory=set)
    behind: bool = False

    def done(self, delivery: Delivery) -> None:
        """It was judged for good: the broker may delete it, or it leaves the journal where it was parked."""
        if delivery.q >= 0:
            self.acknowledged.append(delivery.q)
        else:
            self.batch.unparked.append(-delivery.q)


class Incoming:
    """Receives for one peer, on one link after another."""

    def __init__(
        self,
        inspector: Inspector,
        posts: PostInspector,
        epochs: Epochs,
        repairs: Repairs,
        membership: Membership,
        cards: CardDirectory,
        journal: Journal,
        tracker: Tracker,
        hub: Hub,
        runtime: Runtime,
    ) -> None:
        self._inspector = inspector
        self._posts = posts
        self._epochs = epochs
        self._repairs = repairs
        self._membership = membership
        self._cards = cards
        self._journal = journal
        self._tracker = tracker
        self._hub = hub
        self._runtime = runtime
        self.reactions = Reactions()
        self._broker = BrokerId("")
        self._windows: dict[SessionId, ReplayWindow] = {}
        self._channel_windows: dict[Stream, ReplayWindow] = {}
        self._parked: Counter[PeerId] = Counter()
        self._unlocked: set[Digest] = set()
        """Epochs that have come, for which posts may be parked."""
        self._expected = 0
        self._drained = asyncio.Event()
        self._attestations: OrderedDict[str, tuple[Attestation, Statement]] = OrderedDict()
        self._recorded_attestations: set[str] = set()
        self._arrived: deque[Delivery] = deque()
        self._waiting: list[tuple[Delivery, Held]] = []
        self._unattested: list[Delivery] = []
        self._confirming = False
        self._wake = asyncio.Event()

    async def load(self) -> None:
        """Read the replay windows from the journal, and for which epochs posts are parked."""
        mesh = self._membership.mesh
        rows = await self._journal.read(lambda connection: keys.load_windows(connection, mesh))
        self._windows = {row.session: row.window for row in rows}
        streams = await self._journal.read(lambda connection: channels.load_windows(connection, mesh))
        self._channel_windows = {(row.session, row.channel): row.window for row in streams}
        parked, waiting = await self._journal.read(
            lambda c: (epoch_rows.count_parked(c, mesh), epoch_rows.parked_epochs(c, mesh))
        )
        self._parked = Counter(parked)
        self._unlocked = {epoch for epoch in waiting if self._epochs.find(epoch) is not None}

    def begin_link(self, broker: BrokerId) -> None:
        """A new link to `broker`, which hands out again what was not acknowledged."""
        self._broker = broker
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
        """Queue what was pushed; the broker leases at most `MAX_UNACKNOWLEDGED_PUSHES` to a link."""
        for statement in push.atts:
            self._take_attestation(statement)
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
                outcome = await self._judge(line, deliveries)
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

    async def _judge(self, line: Line, deliveries: list[Delivery]) -> _Round:
        """Judge a batch in its order; once more from the start when something had to be fetched for it."""
        synced = cards_fetched = False
        while True:
            current = _Round()
            for index, delivery in enumerate(deliveries):
                self._judge_one(delivery, current, synced=synced, cards_fetched=cards_fetched)
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

    def _judge_one(self, delivery: Delivery, current: _Round, *, synced: bool, cards_fetched: bool) -> None:
        if delivery.st is not None:
            self._judge_notice(delivery, delivery.st, current)
            return
        try:
            message = (
                codec.decode_epoch(bytes(delivery.ep)) if delivery.ep else codec.decode_envelope(bytes(delivery.e))
            )
        except Invalid as error:
            current.batch.unopened.append(Unopened(error.code, "", ""))
            current.done(delivery)
            return
        known = self._attestations.get(message.att)
        if known is None:
            current.unattested.append(delivery)
            return
        attestation, statement = known
        verdict: Verdict
        try:
            if isinstance(message, PublishedEpoch):
                verdict = self._judge_epoch(delivery, message, attestation, current, synced=synced)
            else:
                verdict = self._judge_message(
                    delivery, message, known, current, synced=synced, cards_fetched=cards_fetched
                )
        except Invalid as error:
            current.batch.unopened.append(self._unopened(error.code, attestation.member, message))
            current.done(delivery)
            return
        match verdict:
            case Held(missing=Missing.TIME) if len(self._waiting) + len(current.held) >= MAX_HELD:
                current.batch.unopened.append(Unopened("too_early", verdict.sender, _id_of(message)))
            case Held(missing=missing):
                current.behind |= missing is Missing.ROSTER
                if missing is Missing.CARD:
                    current.unknown_cards.add(verdict.sender)
                current.held.append((delivery, verdict))
                return
            case Forked():
                current.forks.append(verdict)
                return
            case Keyless() if delivery.q < 0:
                return  # it stays parked
            case Keyless():
                self._park(delivery, verdict, _id_of(message), statement, current)
            case Repeated(internal=False):
                current.batch.unopened.append(Unopened("replay", verdict.sender, verdict.message_id))
            case _:
                pass
        current.done(delivery)

    def _judge_message(
        self,
        delivery: Delivery,
        message: Send | Post,
        known: tuple[Attestation, Statement],
        current: _Round,
        *,
        synced: bool,
        cards_fetched: bool,
    ) -> Verdict:
        attestation, statement = known
        now = self._runtime.now()
        verdict: Verdict
        if isinstance(message, Send):
            verdict = self._inspector.inspect(
                message,
                attestation,
                partial(self._window_of, current),
                now,
                synced=synced,
                cards_fetched=cards_fetched,
            )
        else:
            verdict = self._posts.inspect(
                message,
                attestation,
                partial(self._channel_window_of, current),
                now,
                synced=synced,
                cards_fetched=cards_fetched,
            )
        if isinstance(verdict, Authentic):
            message_rules.check_content(verdict.header["ct"], attestation)
            content, permit = self.reactions.read(verdict), self.reactions.permit(verdict.header)
            confirmed = self._is_confirmed(verdict.channel)
            self._accept(Judged(verdict, content, delivery.at, permit, confirmed), statement, current)
        return verdict

    def _judge_epoch(
        self, delivery: Delivery, published: PublishedEpoch, attestation: Attestation, current: _Round, *, synced: bool
    ) -> Held | Forked | None:
        """Open our slot of an epoch; where only that fails, the record is kept and its author asked."""
        try:
            verdict = self._epochs.inspect(published, attestation, delivery.slot, synced=synced)
        except Invalid as error:
            if error.code in SLOT_CODES:
                current.batch.wanted.append(published.st)
            raise
        if isinstance(verdict, HeldEpoch):
            current.batch.epochs.append(TakenEpoch(verdict, published.st))
            return None
        return verdict

    def _park(
        self, delivery: Delivery, keyless: Keyless, message_id: str, statement: Statement, current: _Round
    ) -> None:
        sender = keyless.sender
        waiting = [draft for draft, _ in current.batch.parked]
        of_sender = self._parked[sender] + sum(draft.sender == sender for draft in waiting)
        if of_sender >= MAX_PARKED_PER_SENDER or self._parked.total() + len(waiting) >= MAX_PARKED:
            current.batch.unopened.append(Unopened("no_epoch_key", sender, message_id))
            return
        draft = ParkedDraft(keyless.epoch, sender, message_id, statement, bytes(delivery.e), delivery.at)
        current.batch.parked.append((draft, self._repairs.question(sender, keyless.epoch)))

    def _is_confirmed(self, channel: ChannelId | None) -> bool:
        return channel is None or is_confirmed(self._membership.roster, channel)

    def _accept(self, judged: Judged, statement: Statement, current: _Round) -> None:
        message = judged.message
        attestation = message.attestation
        current.batch.judged.append(judged)
        if message.channel is None:
            current.windows[attestation.session] = message.window
        else:
            current.channel_windows[attestation.session, message.channel] = message.window
        if message.gap:
            stream = (message.sender, message.channel)
            current.gaps[stream] = current.gaps.get(stream, 0) + message.gap
        if attestation.digest not in self._recorded_attestations:
            current.batch.attestations.append((attestation.digest, attestation.expires_at, statement))

    def _judge_notice(self, delivery: Delivery, statement: Statement, current: _Round) -> None:
        try:
            current.batch.notices.append(read_notice(statement, self._membership.mesh, self._broker))
        except Invalid as error:
            current.batch.unopened.append(Unopened(error.code, "", ""))
        current.done(delivery)

    def _unopened(self, code: str, sender: PeerId, message: Send | Post | PublishedEpoch) -> Unopened:
        nack = None
        if isinstance(message, PublishedEpoch):
            if code not in SLOT_CODES:
                return Unopened(code, sender, "")
            epoch = statements.statement_digest(message.st, "epoch")
            return Unopened(code, sender, topic_of(epoch), self._repairs.question(sender, epoch))
        if code == "stale_key" and isinstance(message, Send):
            nack = Draft(
                message_id=MessageId(self._runtime.entropy(16).hex()),
                peer=sender,
                content_type=contents.NACK,
                body=contents.write_nack(Nack(MessageId(message.id), code)),
                created_at=self._runtime.now(),
                priority="low",
                intent="ack",
            )
        return Unopened(code, sender, message.id, nack)

    # Recording

    async def _record(self, outcome: _Round) -> None:
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
            ChannelWindowRow(*stream, window, UnixMillis(expiry[stream[0]] + limits.REPLAY_STATE_GRACE_MS))
            for stream, window in outcome.channel_windows.items()
        ]
        members = self._membership.roster.members
        users = {one.message.sender: members[one.message.sender].user for one in batch.judged}
        outcomes = await self._journal.write(lambda connection: record_batch(connection, mesh, batch, users, now))
        self._windows.update(outcome.windows)
        self._channel_windows.update(outcome.channel_windows)
        self._recorded_attestations.update(digest for digest, _, _ in batch.attestations)
        self._react(outcome, outcomes)

    def _react(self, outcome: _Round, outcomes: Outcomes) -> None:
        self._tracker.record(outcomes.recorded)
        for arrived in outcomes.arrived:
            self._hub.publish(arrived)
            if arrived.reply_to is not None:
                self._tracker.touch(arrived.reply_to)
        if outcomes.arrived:
            self._tracker.touch_inbox()
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
            self._parked[draft.sender] += 1
            self._repairs.asked(question.peer, draft.epoch)
        for taken in batch.epochs:
            self._epochs.hold(taken.held)
        for judged in batch.judged:
            if not isinstance(judged.content, str | list | Nack | Profile):
                judged.content.settle()

    async def _unpark(self) -> None:
        """Judge the posts whose epochs have come, as if they were delivered now."""
        epochs, self._unlocked = self._unlocked, set()
        mesh = self._membership.mesh
        parked = await self._journal.read(lambda connection: epoch_rows.load_parked(connection, mesh, epochs))
        for post in parked:
            self._take_attestation(post.attestation)
            self._parked[post.sender] -= 1
            self._arrived.append(Delivery(q=-post.id, at=post.accepted_at, e=msgspec.Raw(post.frame)))

    # Holding

    def _keep(self, line: Line, group: asyncio.TaskGroup, outcome: _Round) -> None:
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

    def _window_of(self, current: _Round, session: SessionId) -> ReplayWindow:
        return current.windows.get(session) or self._windows.get(session) or ReplayWindow()

    def _channel_window_of(self, current: _Round, stream: Stream) -> ReplayWindow | None:
        return current.channel_windows.get(stream) or self._channel_windows.get(stream)

    async def _sleep(self) -> None:
        self._wake.clear()
        dues = [held.due_at for _, held in self._waiting if held.due_at is not None]
        wait_s = None if not dues else max(min(dues) - self._runtime.now(), 1) / 1000
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wake.wait()

    def _take_attestation(self, statement: Statement) -> None:
        """Verify an attestation once; whether its member and time hold is judged with each envelope."""
        try:
            attestation = identity.open_attestation(statement)
        except Invalid as error:
            self._hub.publish(events.EnvelopeRefused(error.code, statement.k[:64]))
            return
        self._attestations[attestation.digest] = (attestation, statement)
        while len(self._attestations) > MAX_ATTESTATIONS:
            self._attestations.popitem(last=False)


def _id_of(message: Send | Post | PublishedEpoch) -> str:
    """The id as the envelope names it: a hint. An epoch has none."""
    return "" if isinstance(message, PublishedEpoch) else message.id
