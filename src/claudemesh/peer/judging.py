"""Judging what the broker pushes: one delivery at a time, in a round that is recorded as a whole.

Nothing here waits or changes what outlives the round: a round may be judged again from its start.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from claudemesh.crypto import identity, statements
from claudemesh.crypto.identity import Attestation
from claudemesh.crypto.statements import Statement
from claudemesh.errors import Invalid
from claudemesh.peer import contents, events
from claudemesh.peer.batch import Batch, Content, Judged, TakenEpoch, Unopened, read_content, read_notice
from claudemesh.peer.contents import Nack, Profile
from claudemesh.peer.epochs import SLOT_CODES, Epochs
from claudemesh.peer.events import Hub
from claudemesh.peer.grants import Allow, Refuse
from claudemesh.peer.journal.epochs import ParkedDraft
from claudemesh.peer.journal.outbox import Draft
from claudemesh.peer.link_clock import LinkClock
from claudemesh.peer.membership import Membership
from claudemesh.peer.post_receiving import Keyless, PostInspector, Stream
from claudemesh.peer.receiving import Authentic, Forked, Held, Inspector, Missing, Repeated
from claudemesh.peer.repairing import Repairs, topic_of
from claudemesh.peer.runtime import Runtime
from claudemesh.protocol import codec, message_rules
from claudemesh.protocol.confirmation import is_confirmed
from claudemesh.protocol.epochs import HeldEpoch
from claudemesh.protocol.messages import Delivery, Post, PublishedEpoch, Send
from claudemesh.protocol.replay import ReplayWindow
from claudemesh.types import BrokerId, ChannelId, MessageId, PeerId, SessionId, UnixMillis

MAX_ATTESTATIONS: Final = 4_096
MAX_PARKED: Final = 1_000
MAX_PARKED_PER_SENDER: Final = 100

Reading = Callable[[Authentic], Content]


@dataclass(slots=True)
class Reactions:
    """Whom to ask about a message, and whom to tell after a commit; set where the peer is composed."""

    receipts_due: Callable[[], None] = lambda: None
    outbox_changed: Callable[[], None] = lambda: None
    profile_arrived: Callable[[PeerId, Profile], None] = lambda _peer, _profile: None
    permit: Callable[[Mapping[str, Any]], Allow | Refuse] = lambda header: Allow(header["prio"])
    """Decides by its header whether an authentic message is taken."""
    hold: Callable[[Batch, UnixMillis], None] = lambda _batch, _now: None
    """Marks what waits for a person, before a batch is recorded."""
    unhold: Callable[[UnixMillis], None] = lambda _now: None
    """That batch was not recorded."""
    read: Reading = read_content
    """Reads the body of an authentic message."""


Verdict = Authentic | Repeated | Held | Forked | Keyless | None


@dataclass(slots=True)
class Round:
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


class Judge:
    """Knows what the verdict on a delivery depends on, and the replay windows as far as they are recorded."""

    def __init__(
        self,
        inspector: Inspector,
        posts: PostInspector,
        epochs: Epochs,
        repairs: Repairs,
        membership: Membership,
        hub: Hub,
        clock: LinkClock,
        runtime: Runtime,
    ) -> None:
        self._inspector = inspector
        self._posts = posts
        self._epochs = epochs
        self._repairs = repairs
        self._membership = membership
        self._hub = hub
        self._clock = clock
        self._runtime = runtime
        self.reactions = Reactions()
        self.broker = BrokerId("")
        """The broker of the open link, whose notices count."""
        self.windows: dict[SessionId, ReplayWindow] = {}
        self.channel_windows: dict[Stream, ReplayWindow] = {}
        self.parked: Counter[PeerId] = Counter()
        """How many posts of each sender wait for their epochs."""
        self._attestations: OrderedDict[str, tuple[Attestation, Statement]] = OrderedDict()
        self._recorded: set[str] = set()

    def settle(self, current: Round) -> None:
        """A round is recorded: what it accepted is not accepted again."""
        self.windows.update(current.windows)
        self.channel_windows.update(current.channel_windows)
        self._recorded.update(digest for digest, _, _ in current.batch.attestations)
        self.parked.update(draft.sender for draft, _ in current.batch.parked)

    def take_attestation(self, statement: Statement) -> None:
        """Verify an attestation once; whether its member and time hold is judged with each envelope."""
        try:
            attestation = identity.open_attestation(statement)
        except Invalid as error:
            self._hub.publish(events.EnvelopeRefused(error.code, statement.k[:64]))
            return
        self._attestations[attestation.digest] = (attestation, statement)
        while len(self._attestations) > MAX_ATTESTATIONS:
            self._attestations.popitem(last=False)

    def judge(
        self, delivery: Delivery, current: Round, *, synced: bool, cards_fetched: bool, room_to_hold: int
    ) -> None:
        """Judge one delivery as part of a round.

        Args:
            synced: The roster was fetched after the delivery arrived.
            cards_fetched: The cards that the round lacked were fetched.
            room_to_hold: How many more deliveries may be held in memory until their time comes.
        """
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
            case Held(missing=Missing.TIME) if len(current.held) >= room_to_hold:
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
        current: Round,
        *,
        synced: bool,
        cards_fetched: bool,
    ) -> Verdict:
        attestation, statement = known
        now = self._clock.now()
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
        self, delivery: Delivery, published: PublishedEpoch, attestation: Attestation, current: Round, *, synced: bool
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
        self, delivery: Delivery, keyless: Keyless, message_id: str, statement: Statement, current: Round
    ) -> None:
        sender = keyless.sender
        waiting = [draft for draft, _ in current.batch.parked]
        of_sender = self.parked[sender] + sum(draft.sender == sender for draft in waiting)
        if of_sender >= MAX_PARKED_PER_SENDER or self.parked.total() + len(waiting) >= MAX_PARKED:
            current.batch.unopened.append(Unopened("no_epoch_key", sender, message_id))
            return
        draft = ParkedDraft(keyless.epoch, sender, message_id, statement, bytes(delivery.e), delivery.at)
        current.batch.parked.append((draft, self._repairs.question(sender, keyless.epoch)))

    def _is_confirmed(self, channel: ChannelId | None) -> bool:
        return channel is None or is_confirmed(self._membership.roster, channel)

    def _accept(self, judged: Judged, statement: Statement, current: Round) -> None:
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
        if attestation.digest not in self._recorded:
            current.batch.attestations.append((attestation.digest, attestation.expires_at, statement))

    def _judge_notice(self, delivery: Delivery, statement: Statement, current: Round) -> None:
        try:
            current.batch.notices.append(read_notice(statement, self._membership.mesh, self.broker))
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

    def _window_of(self, current: Round, session: SessionId) -> ReplayWindow:
        return current.windows.get(session) or self.windows.get(session) or ReplayWindow()

    def _channel_window_of(self, current: Round, stream: Stream) -> ReplayWindow | None:
        return current.channel_windows.get(stream) or self.channel_windows.get(stream)


def _id_of(message: Send | Post | PublishedEpoch) -> str:
    """The id as the envelope names it: a hint. An epoch has none."""
    return "" if isinstance(message, PublishedEpoch) else message.id
