"""Who may make an epoch, and for whom it is: the rules that need no secret (docs/spec/channels.md §2).

Peers run them before they open a slot, the broker before it stores one.
"""

from collections.abc import Sequence

from claudemesh.crypto.epoch_record import EpochRecord
from claudemesh.crypto.identity import Attestation
from claudemesh.errors import EnvelopeRefused, EpochRefused, Refused
from claudemesh.protocol.limits import CLOCK_SKEW_MS
from claudemesh.protocol.roster import Relation, Roster
from claudemesh.types import ChannelId, PeerId


def slot_holders(roster: Roster, scope: ChannelId, seq: int) -> list[PeerId]:
    """The peers that an epoch made at `seq` is for, in ascending order: the order of its slots."""
    return sorted(peer for peer in roster.members if roster.was_in_channel_at(peer, scope, seq))


def check_author(record: EpochRecord, attestation: Attestation) -> None:
    """Require that a record was signed by an attested session of its author, with the capability `chan`.

    Whether the author is active now does not matter: what it made while it was must stay readable.

    Raises:
        EpochRefused: `epoch_author`.
        EnvelopeRefused: `cap` or `att_expired`.
    """
    signed = (record.session, record.author, record.mesh)
    if signed != (attestation.session, attestation.member, attestation.mesh):
        raise EpochRefused("epoch_author", "another session, peer or mesh")
    if "chan" not in attestation.capabilities:
        raise EnvelopeRefused("cap", "chan")
    if not attestation.issued_at - CLOCK_SKEW_MS <= record.made_at <= attestation.expires_at:
        raise EnvelopeRefused("att_expired")


def check_place(record: EpochRecord, roster: Roster) -> None:
    """Require that a record is for a scope of this mesh, by a peer that was in it at `rs`.

    Args:
        roster: Has the head that the record names.

    Raises:
        EpochRefused: `epoch` or `epoch_author`.
    """
    if record.mesh != roster.mesh:
        raise EpochRefused("epoch", "of another mesh")
    if record.scope not in roster.channels or roster.scope_of(record.scope) != record.scope:
        raise EpochRefused("epoch", "of no scope")
    if not roster.was_in_channel_at(record.author, record.scope, record.roster_seq):
        raise EpochRefused("epoch_author", "not in the channel")


def check_publication(record: EpochRecord, attestation: Attestation, slots: Sequence[str], roster: Roster) -> None:
    """Decide, as the broker, whether a record and its slots may be stored.

    Raises:
        EpochRefused, EnvelopeRefused: The record breaks a rule of `check_author` or `check_place`, names a head
            that is not on the roster, or comes with another number of slots (`no_slot`).
        Refused: `stale_roster`; the membership of the scope changed since.
    """
    check_author(record, attestation)
    check_place(record, roster)
    if roster.relate(record.roster_seq, record.roster_head) is not Relation.KNOWN:
        raise EpochRefused("epoch", "of another roster")
    check_fresh(record.scope, record.roster_seq, roster)
    if len(slots) != len(slot_holders(roster, record.scope, record.roster_seq)):
        raise EpochRefused("no_slot", "one slot for each member")


def check_fresh(channel: ChannelId, seq: int, roster: Roster) -> None:
    """Refuse, as the broker, what was sealed before the channel's last membership change.

    The members have changed since, so it would miss some and reach others.

    Raises:
        Refused: `stale_roster`; the sender fetches the roster and seals again.
    """
    if seq < roster.channel_version(channel):
        raise Refused("stale_roster")
