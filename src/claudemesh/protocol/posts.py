"""What a recipient checks of a channel message, in this order (docs/spec/channels.md §5)."""

from collections.abc import Container
from dataclasses import dataclass

from claudemesh.crypto import channel_envelope, statements
from claudemesh.crypto.epochs import channel_key
from claudemesh.crypto.frames import Opened, Sealed
from claudemesh.crypto.identity import Attestation
from claudemesh.errors import EnvelopeRefused, Unopenable
from claudemesh.protocol.epochs import EpochBook, HeldEpoch
from claudemesh.protocol.heads import Gossip, claimed_head
from claudemesh.protocol.message_rules import (
    Unsettled,
    check_attestation,
    check_origin,
    check_times,
    settle_claim,
)
from claudemesh.protocol.messages import Post
from claudemesh.protocol.replay import ReplayWindow
from claudemesh.protocol.roster import Roster
from claudemesh.types import ChannelId, SessionId, UnixMillis


@dataclass(frozen=True, slots=True)
class CheckedPost:
    """A channel message that passed every check but the replay window, which is stored with it."""

    channel: ChannelId
    opened: Opened
    is_stale: bool
    """Its sender had not yet seen the newest membership change: peers that have left may read it too."""


def check_post(
    post: Post,
    attestation: Attestation,
    book: EpochBook,
    roster: Roster,
    now: UnixMillis,
    *,
    dead: Container[SessionId] = (),
    synced: bool = False,
) -> CheckedPost | Unsettled:
    """Open and verify a channel message, or raise: there is no partial result.

    The caller then fetches the sender's card when the header's `cs` is newer than the one it knows,
    checks again with the sessions that it ends, and passes the counter `n` through the replay window
    of (session, channel).

    Args:
        attestation: Opened; the one that the post names.
        dead: The sessions that the sender's newest known card ends.
        synced: Whether the roster was fetched after the post arrived.

    Raises:
        EnvelopeRefused: The code names the check that failed.
        Unopenable: `no_epoch_key` or `secretbox_open`.
        Malformed, BadSignature: What was inside is not a message of that session.
    """
    channel = ChannelId(post.chan)
    is_known = channel in roster.channels and attestation.member in roster.members
    if not synced and not is_known and attestation.mesh == roster.mesh:
        return Unsettled(Gossip.SYNC)
    check_attestation(attestation, roster, "chan", dead)
    epoch = _epoch_of(post, book, roster)
    opened = _open(post, attestation, epoch)
    header = opened.header
    check_origin(header, attestation)
    if (header["chan"], header["ep"]) != (channel, epoch.id):
        raise EnvelopeRefused("misdirected", "another channel or epoch")
    check_times(header, attestation, now)
    unsettled = settle_claim(claimed_head(attestation.mesh, header), roster, synced=synced)
    if unsettled is not None:
        return unsettled
    if not roster.was_in_channel_at(attestation.member, channel, roster.seq):
        raise EnvelopeRefused("not_in_channel")
    if epoch.record.roster_seq > header["rs"]:
        raise EnvelopeRefused("epoch_from_future")
    return CheckedPost(channel, opened, epoch.record.roster_seq < roster.channel_version(channel))


def first_window(counter: int) -> ReplayWindow:
    """The window of a stream that begins, for this reader, with `counter`: a newcomer has missed nothing."""
    return ReplayWindow(highest=counter - 1)


def _epoch_of(post: Post, book: EpochBook, roster: Roster) -> HeldEpoch:
    epoch = book.find(post.ep)
    if epoch is None:
        raise Unopenable("no_epoch_key")
    known = ChannelId(post.chan) in roster.channels
    if not known or roster.scope_of(ChannelId(post.chan)) != epoch.record.scope:
        raise EnvelopeRefused("misdirected", "the epoch is not of this channel")
    return epoch


def _open(post: Post, attestation: Attestation, epoch: HeldEpoch) -> Opened:
    sealed = Sealed(statements.from_base64url(post.nonce), statements.from_base64url(post.ct))
    return channel_envelope.open_sealed(sealed, attestation, channel_key(epoch.secret, ChannelId(post.chan)))
