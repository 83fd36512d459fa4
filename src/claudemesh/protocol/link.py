"""One link between a peer and a broker, both roles, without I/O (docs/spec/wire.md §3).

    broker:  CHALLENGED ──hello──► OPEN
                        ├─claim──► CLAIMED      may fetch the roster and append one admission
                        └─genesis► UPLOADING    may append the rest of a log that the broker does not hold
    peer:    CONNECTED ──challenge──► GREETED ──hello_ack / claimed──► OPEN / CLAIMED

Frames go in by `receive`, what it returns is for the caller: an event, or a message that the state
allows. Deadlines come out of `next_deadline`. A violation raises, and the caller closes the link.
"""

from dataclasses import dataclass
from enum import Enum

from claudemesh.crypto import identity
from claudemesh.crypto.identity import Attestation, SessionKeys
from claudemesh.crypto.primitives import SigningKey
from claudemesh.crypto.statements import Statement
from claudemesh.errors import HandshakeRefused, Refused
from claudemesh.protocol import codec, handshake, limits
from claudemesh.protocol.handshake import ChallengeBody, HelloBody
from claudemesh.protocol.messages import (
    Append,
    BrokerMessage,
    Challenge,
    Claim,
    Claimed,
    Closing,
    Hello,
    HelloAck,
    Message,
    PeerMessage,
    Ping,
    Sync,
)
from claudemesh.protocol.messages import Refused as RefusedMessage
from claudemesh.types import BrokerId, Digest, InviteId, MeshId, PeerId, UnixMillis


class LinkState(Enum):
    """Where a link stands; the frames that each state allows are a table of wire.md §3."""

    CHALLENGED = "challenged"
    CLAIMED = "claimed"
    UPLOADING = "uploading"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class HelloReceived:
    """A hello whose signatures hold; whether its member is in the roster is for the broker to look up."""

    hello: HelloBody
    attestation: Attestation
    message: Hello


@dataclass(frozen=True, slots=True)
class ClaimReceived:
    """A claim whose signature holds; whether the invite exists is for the broker to look up."""

    invite: InviteId
    mesh_prefix: str


class BrokerLink:
    """The broker's side of one link."""

    __slots__ = ("_challenge", "_hello", "_key", "_opened_at", "heard_at", "state")

    def __init__(self, key: SigningKey, origin: str, nonce: bytes, now: UnixMillis) -> None:
        self._key = key
        self._challenge = ChallengeBody(BrokerId(key.public), nonce.hex(), origin)
        self._opened_at = now
        self._hello: HelloReceived | None = None
        self.heard_at = now
        self.state = LinkState.CHALLENGED

    def challenge(self) -> bytes:
        """The first frame of the link."""
        nonce = bytes.fromhex(self._challenge.nonce)
        statement = handshake.make_challenge(self._key, self._challenge.origin, nonce, self._opened_at)
        return codec.encode_message(Challenge(st=statement))

    def receive(self, frame: bytes | str, now: UnixMillis) -> HelloReceived | ClaimReceived | PeerMessage:
        """Read one frame.

        Raises:
            Malformed: Not a frame of this protocol, or too large for the state.
            HandshakeRefused: The frame is not allowed in this state, or answers another challenge.
        """
        message = codec.decode_peer_message(frame, self._max_bytes())
        self.heard_at = now
        if self.state is LinkState.OPEN and not isinstance(message, Hello | Claim):
            return message
        match self.state, message:
            case LinkState.CHALLENGED, Hello():
                return self._receive_hello(message, now)
            case LinkState.CHALLENGED, Claim():
                self._check_fresh(now)
                return ClaimReceived(*handshake.open_claim(message.c, self._challenge))
            case LinkState.CHALLENGED | LinkState.UPLOADING, Append():
                return message
            case LinkState.CLAIMED, Append() | Sync() | Ping():
                return message
            case _:
                raise HandshakeRefused("handshake_state", type(message).__name__)

    def accept_hello(self, audit_n: int, audit_head: Digest, sth: Statement, queued: int, now: UnixMillis) -> bytes:
        """The broker found the member active: the link is open. Returns the frame that says so."""
        if self._hello is None:
            raise AssertionError("no hello to accept")
        received, self._hello = self._hello, None
        self.state = LinkState.OPEN
        session = received.attestation.session
        statement = handshake.make_ack(self._key, received.hello, session, audit_n, audit_head, now)
        return codec.encode_message(HelloAck(st=statement, sth=sth, queued=queued))

    def accept_claim(self, claimed: Claimed) -> bytes:
        """The broker found the invite in a roster. Returns the frame that says so."""
        self.state = LinkState.CLAIMED
        return codec.encode_message(claimed)

    def accept_genesis(self) -> None:
        """The first entries of a new log were stored: larger frames may follow."""
        self.state = LinkState.UPLOADING

    def close(self) -> None:
        """No further frame is read."""
        self.state = LinkState.CLOSED

    def next_deadline(self) -> UnixMillis:
        """When `handle_deadline` wants to be called."""
        if self.state is LinkState.CHALLENGED:
            return UnixMillis(self._opened_at + limits.HANDSHAKE_TIMEOUT_MS)
        return UnixMillis(self.heard_at + limits.PRESENCE_LEASE_MS)

    def handle_deadline(self, now: UnixMillis) -> bool:
        """Whether the link is to be closed: its handshake is late, or it has been silent for a lease."""
        return now >= self.next_deadline()

    def _receive_hello(self, message: Hello, now: UnixMillis) -> HelloReceived:
        self._check_fresh(now)
        attestation = identity.open_attestation(message.att)
        if not attestation.issued_at - limits.CLOCK_SKEW_MS <= now <= attestation.expires_at:
            raise HandshakeRefused("hello", "the attestation is not valid now; check the clocks")
        hello = handshake.open_hello(message.h, attestation, self._challenge)
        self._hello = HelloReceived(hello, attestation, message)
        return self._hello

    def _check_fresh(self, now: UnixMillis) -> None:
        if self._hello is not None:
            raise HandshakeRefused("handshake_state", "a challenge is answered once")
        if now > self._opened_at + limits.CHALLENGE_LIFETIME_MS:
            raise HandshakeRefused("handshake_timeout")

    def _max_bytes(self) -> int:
        match self.state:
            case LinkState.OPEN:
                return limits.MAX_FRAME_BYTES
            case LinkState.UPLOADING:
                return limits.MAX_UPLOAD_FRAME_BYTES
            case _:
                return limits.MAX_UNAUTHENTICATED_FRAME_BYTES


@dataclass(frozen=True, slots=True)
class Member:
    """Who dials: a session of a member of `mesh`, and how far its roster goes."""

    mesh: MeshId
    member: PeerId
    session: SessionKeys
    attestation: Statement
    roster_seq: int
    roster_head: Digest
    sid: str = ""
    cwd: str = ""
    pid: int = 0
    cursor: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LinkHolder:
    """Who dials: somebody with an invite link, not yet in the roster."""

    invite: SigningKey
    mesh_prefix: str


@dataclass(frozen=True, slots=True)
class Founder:
    """Who dials: somebody about to upload a roster that the broker does not hold."""


@dataclass(frozen=True, slots=True)
class Greeted:
    """The broker's challenge holds. `reply` (if any) is to be sent now; `broker` is the broker's key."""

    broker: BrokerId
    reply: bytes | None


@dataclass(frozen=True, slots=True)
class Opened:
    """The broker acknowledged the hello; `sth` is its signed head, not verified yet."""

    broker_clock: UnixMillis
    audit_n: int
    audit_head: Digest
    sth: Statement
    queued: int


class PeerLink:
    """The peer's side of one link."""

    def __init__(
        self,
        dialled: str,
        broker: BrokerId | None,
        dialler: Member | LinkHolder | Founder,
        client_nonce: bytes,
        now: UnixMillis,
    ) -> None:
        """Args:
        dialled: The URL as dialled; the challenge must be for it.
        broker: The broker's key from the roster; None while joining or founding.
        client_nonce: 16 random bytes.
        """
        self._dialled = dialled
        self._expected = broker
        self._dialler = dialler
        self._client_nonce = client_nonce
        self._dialled_at = now
        self._greeted = False
        self.heard_at = now
        self.sent_at = now
        self._pinged_at = now
        self.state = LinkState.CHALLENGED
        self.broker: BrokerId | None = None

    def receive(self, frame: bytes | str, now: UnixMillis) -> Greeted | Opened | BrokerMessage:
        """Read one frame; raises as `BrokerLink.receive`, and `Refused` when the broker ends the handshake."""
        message = codec.decode_broker_message(frame)
        self.heard_at = now
        if self.state is not LinkState.CHALLENGED:
            return message
        match message:
            case Challenge() if not self._greeted:
                return self._greet(message, now)
            case HelloAck() if self._greeted and isinstance(self._dialler, Member):
                return self._open(message, self._dialler)
            case Claimed() if self._greeted and isinstance(self._dialler, LinkHolder):
                self.state = LinkState.CLAIMED
                return message
            case Closing() | RefusedMessage():
                raise refusal(message)
            case _:
                raise HandshakeRefused("handshake_state", type(message).__name__)

    def encode(self, message: Message, now: UnixMillis) -> bytes:
        """Encode one frame to send, and remember that the broker hears from this link."""
        self.sent_at = now
        return codec.encode_message(message)

    def next_deadline(self) -> UnixMillis:
        """When `handle_deadline` wants to be called."""
        if self.state is LinkState.CHALLENGED:
            return UnixMillis(self._dialled_at + 2 * limits.HANDSHAKE_TIMEOUT_MS)
        return UnixMillis(min(self._ping_due_at(), self.heard_at + limits.PRESENCE_LEASE_MS))

    def handle_deadline(self, now: UnixMillis) -> bytes | None:
        """A ping to send, or None; raises `HandshakeRefused` when the broker has been silent for too long."""
        if self.state is LinkState.CHALLENGED:
            if now >= self.next_deadline():
                raise HandshakeRefused("handshake_timeout")
            return None
        if now >= self.heard_at + limits.PRESENCE_LEASE_MS:
            raise HandshakeRefused("handshake_timeout", "the broker is silent")
        if now >= self._ping_due_at():
            self._pinged_at = now
            return self.encode(Ping(), now)
        return None

    def _ping_due_at(self) -> int:
        """After a silence; and as often as heads are signed anew, since their new ones come with the answer."""
        return min(self.sent_at + limits.PING_INTERVAL_MS, self._pinged_at + limits.HEAD_INTERVAL_MS)

    def _greet(self, message: Challenge, now: UnixMillis) -> Greeted:
        challenge = handshake.open_challenge(message.st, self._expected, self._dialled, now)
        self._greeted = True
        self.broker = challenge.broker
        match self._dialler:
            case Member() as member:
                reply: bytes | None = self.encode(self._hello(challenge, member, now), now)
            case LinkHolder() as holder:
                claim = handshake.make_claim(challenge, holder.invite, holder.mesh_prefix, now)
                reply = self.encode(Claim(c=claim), now)
            case _:
                self.state = LinkState.UPLOADING
                reply = None
        return Greeted(challenge.broker, reply)

    def _hello(self, challenge: ChallengeBody, member: Member, now: UnixMillis) -> Hello:
        statement = handshake.make_hello(
            challenge,
            member.session,
            member.mesh,
            member.member,
            member.roster_seq,
            member.roster_head,
            self._client_nonce,
            now,
        )
        return Hello(
            h=statement,
            att=member.attestation,
            sid=member.sid,
            pid=member.pid,
            cwd=member.cwd,
            cursor=list(member.cursor),
        )

    def _open(self, message: HelloAck, member: Member) -> Opened:
        broker = self.broker
        if broker is None:
            raise AssertionError("greeted without a broker key")
        session = member.session.sign.public
        clock, n, head = handshake.open_ack(message.st, broker, member.mesh, session, self._client_nonce)
        self.state = LinkState.OPEN
        return Opened(clock, n, head, message.sth, message.queued)


def refusal(message: RefusedMessage | Closing) -> Refused:
    """The error that a broker's refusal stands for; an unknown code becomes `invalid`."""
    known = message.code if message.code in Refused.CODES else "invalid"
    detail = message.detail if known == message.code else f"{message.code} {message.detail}".strip()
    return Refused(known, detail, retry_after_ms=message.retry_after_ms)
