"""Opening one envelope: the checks of docs/spec/envelope.md §5, in this order, each with its code.

Nothing falls back: an envelope is opened and authentic, or refused with a code, or held until what is missing
to judge it (the roster, a card, its time) is here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

from claudemesh.crypto import envelope, statements
from claudemesh.crypto.envelope import Opened, Sealed
from claudemesh.crypto.identity import Attestation
from claudemesh.errors import EnvelopeRefused, Unopenable
from claudemesh.peer.cards import CardDirectory
from claudemesh.peer.keyring import Keyring
from claudemesh.peer.membership import Membership
from claudemesh.peer.session import Sessions
from claudemesh.protocol import message_rules
from claudemesh.protocol.heads import Gossip, SignedHead
from claudemesh.protocol.messages import Send
from claudemesh.protocol.replay import ReplayWindow
from claudemesh.types import ChannelId, MessageId, PeerId, SessionId, UnixMillis

CAPABILITY: Final = "dm"


class Missing(Enum):
    """What has to arrive before an envelope can be judged."""

    ROSTER = "roster"
    """Its sender or the head that it names is ahead of this replica."""
    CARD = "card"
    """Its sender has a newer card, which may have ended the session."""
    PROOF = "proof"
    """The broker signed a longer roster and does not hand it over."""
    TIME = "time"
    """It is scheduled for later."""


class Held(NamedTuple):
    """An envelope that cannot be judged yet."""

    missing: Missing
    sender: PeerId
    claim: SignedHead | None = None
    due_at: UnixMillis | None = None


class Forked(NamedTuple):
    """The envelope carries proof that the broker signed two histories."""

    claim: SignedHead
    sender: PeerId


class Repeated(NamedTuple):
    """An authentic message whose counter was accepted before; `internal` is one of the protocol's own."""

    sender: PeerId
    message_id: MessageId
    internal: bool


@dataclass(frozen=True, slots=True)
class Authentic:
    """An opened message that passed every check; `window` and `gap` follow from its counter."""

    opened: Opened
    attestation: Attestation
    window: ReplayWindow
    gap: int
    channel: ChannelId | None = None
    """The channel that it was posted in; None for a direct message."""
    is_stale: bool = False
    """Posted by somebody who had not yet seen the channel's newest membership change."""

    @property
    def header(self) -> dict[str, Any]:
        return self.opened.header

    @property
    def sender(self) -> PeerId:
        return PeerId(self.header["from"])

    @property
    def session(self) -> SessionId:
        return SessionId(self.header["sess"])

    @property
    def message_id(self) -> MessageId:
        return MessageId(self.header["id"])


class Inspector:
    """Judges envelopes against this peer's roster, cards, keys and windows."""

    def __init__(self, membership: Membership, cards: CardDirectory, keyring: Keyring, sessions: Sessions) -> None:
        self._membership = membership
        self._cards = cards
        self._keyring = keyring
        self._sessions = sessions

    def inspect(
        self,
        message: Send,
        attestation: Attestation,
        window_of: Callable[[SessionId], ReplayWindow],
        now: UnixMillis,
        *,
        synced: bool,
        cards_fetched: bool,
    ) -> Authentic | Repeated | Held | Forked:
        """Check one envelope, in the order of the specification.

        Args:
            attestation: Verified in form and signature; named by the envelope.
            synced: The roster was fetched after the envelope arrived.
            cards_fetched: The sender's card was fetched after the envelope arrived.

        Raises:
            Invalid: With the code of the first check that failed. The message is not surfaced.
        """
        held = self._check_attestation(attestation, synced=synced)
        if held is not None:
            return held
        opened = self._open(message, attestation)
        header = opened.header
        self._check_binding(header, message, attestation)
        held = _check_times(header, attestation, now)
        if held is not None:
            return held
        verdict = self._check_gossip(header, synced=synced)
        if verdict is not None:
            return verdict
        self._check_sender(attestation)  # the roster may have moved since the first look
        if header["cs"] > self._cards.number_of(attestation.member) and not cards_fetched:
            return Held(Missing.CARD, attestation.member)
        try:
            accepted = window_of(attestation.session).accept(header["n"])
        except EnvelopeRefused:
            return Repeated(attestation.member, header["id"], header["ct"].startswith("cm/"))
        return Authentic(opened, attestation, accepted.window, accepted.gap)

    def _check_attestation(self, attestation: Attestation, *, synced: bool) -> Held | None:
        roster = self._membership.roster
        if attestation.mesh == roster.mesh and attestation.member not in roster.members and not synced:
            return Held(Missing.ROSTER, attestation.member)
        self._check_sender(attestation)
        return None

    def _check_sender(self, attestation: Attestation) -> None:
        dead = self._cards.dead_sessions(attestation.member)
        message_rules.check_attestation(attestation, self._membership.roster, CAPABILITY, dead)

    def _open(self, message: Send, attestation: Attestation) -> Opened:
        secret = self._secret(message.kid)
        if secret is None:
            raise Unopenable("stale_key", message.kid[:8])
        sealed = Sealed(statements.from_base64url(message.nonce), statements.from_base64url(message.ct))
        return envelope.open_sealed(sealed, attestation, secret)

    def _secret(self, kid: str) -> bytes | None:
        secret = self._keyring.box_secret(kid)
        if secret is not None:
            return secret
        for session in self._sessions.all():
            if session.keys.box.public == kid:
                return session.keys.box.secret
        return None

    def _check_binding(self, header: dict[str, Any], message: Send, attestation: Attestation) -> None:
        message_rules.check_origin(header, attestation)
        if (header["to"], header["kid"]) != (self._keyring.member, message.kid):
            raise EnvelopeRefused("misdirected", "another recipient or key")
        addressed = header.get("tos")
        if addressed is None:
            if self._keyring.box_secret(message.kid) is None:
                raise EnvelopeRefused("misdirected", "sealed to a session that it does not name")
            return
        session = self._sessions.get(addressed)
        if session is None or session.keys.box.public != message.kid:
            raise EnvelopeRefused("misdirected", "sealed to another session than it names")

    def _check_gossip(self, header: dict[str, Any], *, synced: bool) -> Held | Forked | None:
        verdict, claim = self._membership.judge(header, synced=synced)
        if verdict in (Gossip.FORK, Gossip.WITHHELD) and header["from"] in self._membership.rejected:
            raise EnvelopeRefused("other_branch")
        match verdict:
            case Gossip.ACCEPT:
                return None
            case Gossip.SYNC:
                return Held(Missing.ROSTER, header["from"], claim)
            case Gossip.WITHHELD:
                return Held(Missing.PROOF, header["from"], claim)
            case Gossip.FORK:
                return Forked(claim, header["from"])
            case Gossip.UNPROVEN:
                raise EnvelopeRefused("unproven_roster_claim")


def _check_times(header: dict[str, Any], attestation: Attestation, now: UnixMillis) -> Held | None:
    try:
        message_rules.check_times(header, attestation, now)
    except EnvelopeRefused as error:
        if error.code == "too_early":
            return Held(Missing.TIME, header["from"], due_at=header["nb"])
        raise
    return None
