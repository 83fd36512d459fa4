"""Opening one post: the checks of docs/spec/channels.md §5, in this order, each with its code.

The checks are `protocol.posts.check_post`; here is what a peer adds to them: its cards, its replay windows, and
waiting for an epoch, for the roster or for the time that a post names.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from claudemesh.crypto.identity import Attestation
from claudemesh.errors import EnvelopeRefused, Unopenable
from claudemesh.peer.cards import CardDirectory
from claudemesh.peer.epochs import Epochs, unsettled
from claudemesh.peer.membership import Membership
from claudemesh.peer.receiving import Authentic, Forked, Held, Missing, Repeated
from claudemesh.protocol import limits
from claudemesh.protocol.message_rules import Unsettled
from claudemesh.protocol.messages import Post
from claudemesh.protocol.posts import CheckedPost, check_post, first_window
from claudemesh.protocol.replay import ReplayWindow
from claudemesh.types import ChannelId, Digest, PeerId, SessionId, UnixMillis

EARLY_RETRY_MS: Final = limits.MINUTE_MS

Stream = tuple[SessionId, ChannelId]


class Keyless(NamedTuple):
    """A post of a member under an epoch that has not come."""

    sender: PeerId
    epoch: Digest


class PostInspector:
    """Judges posts against this peer's roster, epochs, cards and windows."""

    def __init__(self, membership: Membership, cards: CardDirectory, epochs: Epochs) -> None:
        self._membership = membership
        self._cards = cards
        self._epochs = epochs

    def inspect(
        self,
        post: Post,
        attestation: Attestation,
        window_of: Callable[[Stream], ReplayWindow | None],
        now: UnixMillis,
        *,
        synced: bool,
        cards_fetched: bool,
    ) -> Authentic | Repeated | Held | Forked | Keyless:
        """Check one post, in the order of the specification.

        Args:
            attestation: Verified in form and signature; named by the post.
            synced: The roster was fetched after the post arrived.
            cards_fetched: The sender's card was fetched after the post arrived.

        Raises:
            Invalid: With the code of the first check that failed. The post is not surfaced.
        """
        sender = attestation.member
        try:
            checked = self._check(post, attestation, now, synced=synced)
        except Unopenable as error:
            if error.code != "no_epoch_key" or not self._may_post(sender, post):
                raise
            return Keyless(sender, Digest(post.ep))
        except EnvelopeRefused as error:
            if error.code != "too_early":
                raise
            # The signed time cannot be told from here, and the broker's hint may be wrong: look again until it fits.
            hint = post.nbf if post.nbf is not None and post.nbf > now else now + EARLY_RETRY_MS
            return Held(Missing.TIME, sender, due_at=UnixMillis(hint))
        if isinstance(checked, Unsettled):
            return unsettled(checked, sender, self._membership.rejected)
        header = checked.opened.header
        if header["cs"] > self._cards.number_of(sender) and not cards_fetched:
            return Held(Missing.CARD, sender)
        window = window_of((attestation.session, checked.channel)) or first_window(header["n"])
        try:
            accepted = window.accept(header["n"])
        except EnvelopeRefused:
            return Repeated(sender, header["id"], header["ct"].startswith("cm/"))
        return Authentic(
            checked.opened, attestation, accepted.window, accepted.gap, checked.channel, is_stale=checked.is_stale
        )

    def _check(self, post: Post, attestation: Attestation, now: UnixMillis, *, synced: bool) -> CheckedPost | Unsettled:
        return check_post(
            post,
            attestation,
            self._epochs.book,
            self._membership.roster,
            now,
            dead=self._cards.dead_sessions(attestation.member),
            synced=synced,
        )

    def _may_post(self, sender: PeerId, post: Post) -> bool:
        """Whether it is worth waiting for the epoch: what an outsider sends would be refused anyway."""
        roster = self._membership.roster
        return roster.was_in_channel_at(sender, ChannelId(post.chan), roster.seq)
