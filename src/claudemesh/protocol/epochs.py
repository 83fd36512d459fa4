"""The epochs that a peer holds, and the one send rule (docs/spec/channels.md §2, §3).

A peer may encrypt under an epoch only if no membership change of its scope, in the roster that the
peer knows, is newer than the epoch. Joins, leaves, revocations and rotators that crash or race are
all this one rule.
"""

from bisect import insort
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from claudemesh.crypto.epoch_record import EpochRecord, open_record
from claudemesh.crypto.epochs import Each, NewEpoch, make_epoch, open_slot
from claudemesh.crypto.identity import Attestation, SessionKeys
from claudemesh.crypto.statements import Statement
from claudemesh.errors import EpochRefused
from claudemesh.protocol.epoch_rules import check_author, check_place, slot_holders
from claudemesh.protocol.heads import SignedHead
from claudemesh.protocol.limits import EPOCH_MAX_MS
from claudemesh.protocol.message_rules import Unsettled, settle_claim
from claudemesh.protocol.roster import Relation, Roster
from claudemesh.types import BoxId, ChannelId, Digest, PeerId, SessionId, UnixMillis


@dataclass(frozen=True, slots=True)
class HeldEpoch:
    """An epoch whose secret this peer has; every one of them may be read with."""

    record: EpochRecord
    secret: bytes = field(repr=False)
    received_at: UnixMillis

    @property
    def id(self) -> Digest:
        return self.record.id

    @property
    def is_vouched(self) -> bool:
        """Whether its author's signature was checked; what a peer was merely told of is never sent under."""
        return self.record.session is not None

    def is_young(self, now: UnixMillis) -> bool:
        """Whether it is within its lifetime, which its author cannot stretch by a date in the future."""
        return now < min(self.record.made_at, self.received_at) + EPOCH_MAX_MS


class EpochBook:
    """All epochs that one peer holds in one mesh."""

    def __init__(self, held: Iterable[HeldEpoch] = ()) -> None:
        self._by_id: dict[Digest, HeldEpoch] = {}
        self._order: dict[ChannelId, list[tuple[int, Digest]]] = {}
        """For each scope (-rs, id): newest roster first, then smallest id, the order in which all peers choose."""
        for epoch in held:
            self.hold(epoch)

    def hold(self, epoch: HeldEpoch) -> bool:
        """Add an epoch; returns whether that changed anything: it was unknown, or known without its signature."""
        known = self._by_id.get(epoch.id)
        if known is not None and (known.is_vouched or not epoch.is_vouched):
            return False
        if known is None:
            insort(self._order.setdefault(epoch.record.scope, []), (-epoch.record.roster_seq, epoch.id))
        self._by_id[epoch.id] = epoch
        return True

    def find(self, epoch: str) -> HeldEpoch | None:
        """The epoch of that id, for reading."""
        return self._by_id.get(Digest(epoch))

    def of_scope(self, scope: ChannelId) -> list[HeldEpoch]:
        """Every held epoch of a scope, newest roster first."""
        return [self._by_id[epoch] for _, epoch in self._order.get(scope, ())]

    def usable(
        self, roster: Roster, scope: ChannelId, now: UnixMillis, dead: Container[SessionId] = ()
    ) -> HeldEpoch | None:
        """The epoch to send under, or None when a new one must be made: the send rule.

        All peers that hold the same epochs choose the same, so rotations that raced converge.

        Args:
            dead: Sessions that were ended early; what a thief of one has made is not sent under.
        """
        version = roster.channel_version(scope)
        for minus_seq, epoch_id in self._order.get(scope, ()):
            if -minus_seq < version:
                return None
            epoch = self._by_id[epoch_id]
            on_chain = roster.relate(epoch.record.roster_seq, epoch.record.roster_head) is Relation.KNOWN
            if on_chain and epoch.is_vouched and epoch.is_young(now) and epoch.record.session not in dead:
                return epoch
        return None


def rotate(
    roster: Roster,
    head: SignedHead,
    scope: ChannelId,
    author: PeerId,
    session: SessionKeys,
    boxes: Mapping[PeerId, BoxId],
    now: UnixMillis,
    entropy: bytes,
    *,
    each: Each = map,
) -> NewEpoch:
    """Make an epoch for exactly the members that the roster names now.

    Args:
        head: The broker's signed head of exactly this roster.
        boxes: The current box key of every member of the scope: of its newest card, else of the roster.
        entropy: 64 fresh random bytes.
        each: How to seal to all of them.

    Raises:
        EpochRefused: `epoch_author`; the author is not in the scope, nothing was made.
    """
    if not roster.was_in_channel_at(author, scope, roster.seq):
        raise EpochRefused("epoch_author", "not in the channel")
    draft = {
        "v": 1,
        "mesh": roster.mesh,
        "chan": scope,
        "by": author,
        "rs": roster.seq,
        "rh": roster.head,
        "ra": head.at,
        "rg": head.signature,
        "at": now,
    }
    holders = slot_holders(roster, scope, roster.seq)
    return make_epoch(draft, session, [boxes[peer] for peer in holders], entropy, each=each)


def check_record(
    statement: Statement,
    attestation: Attestation,
    slot: str,
    boxes: Mapping[BoxId, bytes],
    roster: Roster,
    now: UnixMillis,
    *,
    synced: bool = False,
) -> HeldEpoch | Unsettled:
    """Verify an epoch that was delivered, and open our slot of it.

    An accepted epoch is readable; whether it may be sent under is for `EpochBook.usable`, which knows
    the roster of that moment.

    Args:
        attestation: Opened; of the session that signed the record.
        slot: Our slot as delivered; empty when there was none.
        boxes: Our box keys with their secrets, superseded ones included.
        synced: Whether the roster was fetched after the record arrived.

    Raises:
        Malformed, BadSignature: The record is not a signed record.
        EpochRefused: `epoch`, `epoch_author`, `no_slot` or `epoch_commit`.
        EnvelopeRefused: `cap`, `att_expired` or `unproven_roster_claim`.
        Unopenable: `stale_key` or `box_open`.
    """
    record = open_record(statement)
    check_author(record, attestation)
    if record.mesh != roster.mesh:
        raise EpochRefused("epoch", "of another mesh")
    unsettled = settle_claim(_claim_of(record), roster, synced=synced)
    if unsettled is not None:
        return unsettled
    check_place(record, roster)
    return HeldEpoch(record, open_slot(slot, record, boxes), now)


def _claim_of(record: EpochRecord) -> SignedHead:
    return SignedHead(record.mesh, record.roster_seq, record.roster_head, record.body["ra"], record.body["rg"])
