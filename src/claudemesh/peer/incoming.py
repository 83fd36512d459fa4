"""What the broker pushes: judged in batches, recorded in one commit each, and only then acknowledged.

An envelope that cannot be judged yet (its attestation, a proof or its time is missing) stays unacknowledged:
the broker keeps it, and hands it out again on the next link. At most `MAX_HELD` are kept in memory so;
what exceeds that is refused with `too_early`.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from claudemesh.crypto import identity
from claudemesh.crypto.identity import Attestation
from claudemesh.crypto.statements import Statement
from claudemesh.errors import Invalid, Refused, RosterConflict
from claudemesh.peer import contents, events
from claudemesh.peer.cards import CardDirectory
from claudemesh.peer.contents import Nack, Profile
from claudemesh.peer.events import Hub
from claudemesh.peer.journal import Journal, keys
from claudemesh.peer.journal.keys import WindowRow
from claudemesh.peer.journal.outbox import Draft
from claudemesh.peer.line import Line
from claudemesh.peer.membership import Membership
from claudemesh.peer.receiving import Authentic, Forked, Held, Inspector, Missing, Repeated
from claudemesh.peer.recording import Batch, Judged, Outcomes, Unopened, read_content, read_notice, record_batch
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.tracking import Tracker
from claudemesh.protocol import codec, limits
from claudemesh.protocol.messages import Ack, Delivery, Push, Send
from claudemesh.protocol.replay import ReplayWindow
from claudemesh.types import BrokerId, MessageId, PeerId, SessionId, UnixMillis

MAX_HELD: Final = 64
MAX_ATTESTATIONS: Final = 4_096
OPEN_BATCH: Final = 32
"""Envelopes opened (about 150 µs each) before other tasks get a turn."""


@dataclass(slots=True)
class Reactions:
    """Whom to tell after a commit; set where the peer is composed."""

    receipts_due: Callable[[], None] = lambda: None
    outbox_changed: Callable[[], None] = lambda: None
    profile_arrived: Callable[[PeerId, Profile], None] = lambda _peer, _profile: None


@dataclass(slots=True)
class _Round:
    """One pass over a batch."""

    batch: Batch = field(default_factory=Batch)
    acknowledged: list[int] = field(default_factory=list)
    held: list[tuple[Delivery, Held]] = field(default_factory=list)
    unattested: list[Delivery] = field(default_factory=list)
    forks: list[Forked] = field(default_factory=list)
    windows: dict[SessionId, ReplayWindow] = field(default_factory=dict)
    gaps: dict[PeerId, int] = field(default_factory=dict)
    unknown_cards: set[PeerId] = field(default_factory=set)
    behind: bool = False


class Incoming:
    """Receives for one peer, on one link after another."""

    def __init__(
        self,
        inspector: Inspector,
        membership: Membership,
        cards: CardDirectory,
        journal: Journal,
        tracker: Tracker,
        hub: Hub,
        runtime: Runtime,
    ) -> None:
        self._inspector = inspector
        self._membership = membership
        self._cards = cards
        self._journal = journal
        self._tracker = tracker
        self._hub = hub
        self._runtime = runtime
        self.reactions = Reactions()
        self._broker = BrokerId("")
        self._windows: dict[SessionId, ReplayWindow] = {}
        self._attestations: OrderedDict[str, tuple[Attestation, Statement]] = OrderedDict()
        self._recorded_attestations: set[str] = set()
        self._arrived: deque[Delivery] = deque()
        self._waiting: list[tuple[Delivery, Held]] = []
        self._unattested: list[Delivery] = []
        self._confirming = False
        self._wake = asyncio.Event()

    async def load(self) -> None:
        """Read the replay windows from the journal."""
        rows = await self._journal.read(lambda connection: keys.load_windows(connection, self._membership.mesh))
        self._windows = {row.session: row.window for row in rows}

    def begin_link(self, broker: BrokerId) -> None:
        """A new link to `broker`, which hands out again what was not acknowledged."""
        self._broker = broker
        self._arrived.clear()
        self._waiting.clear()
        self._unattested.clear()

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
                if not self._arrived:
                    await self._sleep()
                    continue
                deliveries = [self._arrived.popleft() for _ in range(min(len(self._arrived), 256))]
                outcome = await self._judge(line, deliveries)
                await self._record(outcome)
                for start in range(0, len(outcome.acknowledged), limits.MAX_UNACKNOWLEDGED_PUSHES):
                    await line.post(Ack(q=outcome.acknowledged[start : start + limits.MAX_UNACKNOWLEDGED_PUSHES]))
                self._keep(line, group, outcome)

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
            message = codec.decode_send(bytes(delivery.e or b""))
        except Invalid as error:
            current.batch.unopened.append(Unopened(error.code, "", ""))
            current.acknowledged.append(delivery.q)
            return
        known = self._attestations.get(message.att)
        if known is None:
            current.unattested.append(delivery)
            return
        attestation, statement = known
        try:
            verdict = self._inspector.inspect(
                message,
                attestation,
                partial(self._window_of, current),
                self._runtime.now(),
                synced=synced,
                cards_fetched=cards_fetched,
            )
            if isinstance(verdict, Authentic):
                self._accept(Judged(verdict, read_content(verdict), delivery.at), statement, current)
        except Invalid as error:
            current.batch.unopened.append(self._unopened(error.code, attestation.member, message))
            current.acknowledged.append(delivery.q)
            return
        match verdict:
            case Held(missing=Missing.TIME) if len(self._waiting) + len(current.held) >= MAX_HELD:
                current.batch.unopened.append(Unopened("too_early", verdict.sender, message.id))
            case Held(missing=missing):
                current.behind |= missing is Missing.ROSTER
                if missing is Missing.CARD:
                    current.unknown_cards.add(verdict.sender)
                current.held.append((delivery, verdict))
                return
            case Forked():
                current.forks.append(verdict)
                return
            case Repeated(internal=False):
                current.batch.unopened.append(Unopened("replay", verdict.sender, verdict.message_id))
            case _:
                pass
        current.acknowledged.append(delivery.q)

    def _accept(self, judged: Judged, statement: Statement, current: _Round) -> None:
        message = judged.message
        attestation = message.attestation
        current.batch.judged.append(judged)
        current.windows[attestation.session] = message.window
        if message.gap:
            current.gaps[message.sender] = current.gaps.get(message.sender, 0) + message.gap
        if attestation.digest not in self._recorded_attestations:
            current.batch.attestations.append((attestation.digest, attestation.expires_at, statement))

    def _judge_notice(self, delivery: Delivery, statement: Statement, current: _Round) -> None:
        try:
            current.batch.notices.append(read_notice(statement, self._membership.mesh, self._broker))
        except Invalid as error:
            current.batch.unopened.append(Unopened(error.code, "", ""))
        current.acknowledged.append(delivery.q)

    def _unopened(self, code: str, sender: PeerId, message: Send) -> Unopened:
        nack = None
        if code == "stale_key":
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
        if not (batch.judged or batch.unopened or batch.notices):
            return
        expiry = {one.message.session: one.message.attestation.expires_at for one in batch.judged}
        batch.windows = [
            WindowRow(session, window, UnixMillis(expiry[session] + limits.REPLAY_STATE_GRACE_MS))
            for session, window in outcome.windows.items()
        ]
        members = self._membership.roster.members
        users = {one.message.sender: members[one.message.sender].user for one in batch.judged}
        outcomes = await self._journal.write(lambda connection: record_batch(connection, mesh, batch, users, now))
        self._windows.update(outcome.windows)
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
        for sender, missing in outcome.gaps.items():
            self._hub.publish(events.GapNoticed(sender, missing))
        for sender, profile in outcomes.profiles:
            self.reactions.profile_arrived(sender, profile)
        if outcomes.receipts_due:
            self.reactions.receipts_due()
        if outcomes.outbox_changed:
            self.reactions.outbox_changed()

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
            await self._membership.freeze_by_claim("fork", fork.claim)

    async def _confirm(self, line: Line, held: Held) -> None:
        assert held.claim is not None
        self._confirming = True
        try:
            with suppress(RosterConflict):
                await self._membership.confirm_withheld(line, held.claim)
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
