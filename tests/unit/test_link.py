"""One link without I/O, both roles: every state, every frame (docs/spec/wire.md §3)."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest

from claudemesh.crypto import identity, primitives, statements
from claudemesh.errors import BadSignature, HandshakeRefused, Malformed, Refused
from claudemesh.protocol import codec, handshake, heads, limits, messages
from claudemesh.protocol.link import (
    BrokerLink,
    ClaimReceived,
    Founder,
    Greeted,
    HelloReceived,
    LinkHolder,
    LinkState,
    Opened,
    PeerLink,
)
from claudemesh.protocol.roster import Roster, sign_entry
from claudemesh.types import ZERO_DIGEST, BrokerId, Digest, UnixMillis
from tests.wire_client import Identity, hello

NOW = UnixMillis(1_800_000_000_000)
ORIGIN = "wss://mesh.example/ws"
BROKER = primitives.signing_key(bytes(range(32)))
NONCE = b"n" * 32
INVITE = primitives.signing_key(b"i" * 32)


@pytest.fixture(scope="module")
def owner() -> Identity:
    one = Identity()
    keys = {"sign": one.sign.public, "box": one.box.public, "user": one.user.public}
    body = Roster().next_body("genesis", NOW, by=one.id, m=keys, bk=BROKER.public, nonce="0" * 32)
    one.roster.apply(sign_entry(body, one.sign))
    attestation = identity.attest(one.sign, one.mesh, one.session, UnixMillis(NOW - 1_000), limits.DAY_MS)
    one.attestation = lambda *_: attestation  # type: ignore[method-assign]
    return one


def broker_link() -> BrokerLink:
    return BrokerLink(BROKER, ORIGIN, NONCE, NOW)


def peer_link(dialler: Founder | LinkHolder | Identity, dialled: str = ORIGIN) -> PeerLink:
    how = hello(dialler) if isinstance(dialler, Identity) else dialler
    return PeerLink(dialled, BrokerId(BROKER.public), how, b"c" * 16, NOW)


def sth(owner: Identity) -> statements.Statement:
    return heads.sign_head(owner.mesh, owner.roster.seq, owner.roster.head, NOW, BROKER)


def answered(owner: Identity) -> tuple[PeerLink, BrokerLink, bytes]:
    """Both ends after the challenge, and the hello that is under way."""
    peer, broker = peer_link(owner), broker_link()
    greeted = peer.receive(broker.challenge(), NOW)
    assert isinstance(greeted, Greeted)
    assert greeted.reply is not None
    return peer, broker, greeted.reply


def opened(owner: Identity) -> tuple[PeerLink, BrokerLink]:
    peer, broker, reply = answered(owner)
    assert isinstance(broker.receive(reply, NOW), HelloReceived)
    peer.receive(broker.accept_hello(0, ZERO_DIGEST, sth(owner), 0, NOW), NOW)
    return peer, broker


def frames(owner: Identity) -> dict[str, messages.Message]:
    """One valid frame of every type that a peer sends."""
    challenge = handshake.ChallengeBody(BrokerId(BROKER.public), NONCE.hex(), ORIGIN)
    statement = handshake.make_hello(
        challenge, owner.session, owner.mesh, owner.id, 0, owner.roster.head, b"c" * 16, NOW
    )
    any_statement = owner.attestation()
    entry = sign_entry(owner.roster.next_body("broker", NOW, by=owner.id, bk=BROKER.public), owner.sign)
    return {
        "hello": messages.Hello(h=statement, att=any_statement),
        "claim": messages.Claim(c=handshake.make_claim(challenge, INVITE, owner.mesh[:32], NOW)),
        "append": messages.Append(rid=1, entries=[entry]),
        "sync": messages.Sync(rid=1, seq=0),
        "send": owner.envelope(owner.id),
        "ack": messages.Ack(q=[1]),
        "attest": messages.Attest(rid=1, st=any_statement),
        "end": messages.End(sess="0" * 64),
        "set_status": messages.SetStatus(sess="0" * 64, status="busy"),
        "put_card": messages.PutCard(rid=1, st=any_statement),
        "get_cards": messages.GetCards(rid=1, members=[]),
        "list_peers": messages.ListPeers(rid=1),
        "get_audit": messages.GetAudit(rid=1, n=0),
        "ping": messages.Ping(),
    }


def in_state(state: LinkState, owner: Identity) -> BrokerLink:
    link = broker_link()
    match state:
        case LinkState.CLAIMED:
            link.accept_claim(messages.Claimed(mesh=owner.mesh, seq=0, state="open"))
        case LinkState.UPLOADING:
            link.accept_genesis()
        case LinkState.OPEN:
            link = opened(owner)[1]
        case LinkState.CLOSED:
            link.close()
        case LinkState.CHALLENGED:
            pass
    return link


ALLOWED: dict[LinkState, set[str]] = {
    LinkState.CHALLENGED: {"hello", "claim", "append"},
    LinkState.CLAIMED: {"append", "sync", "ping"},
    LinkState.UPLOADING: {"append"},
    LinkState.CLOSED: set(),
}


def outcome(link: BrokerLink, message: messages.Message) -> str:
    """What a link makes of a frame: "allowed", or the code of the violation."""
    try:
        link.receive(codec.encode_message(message), NOW)
    except (HandshakeRefused, Malformed) as error:
        return error.code
    return "allowed"


@pytest.mark.parametrize("state", list(LinkState), ids=lambda state: state.value)
def test_each_state_allows_exactly_its_frames(owner: Identity, state: LinkState) -> None:
    """The table of wire.md §3, whole: any other frame is a violation."""
    every = frames(owner)

    outcomes = {name: outcome(in_state(state, owner), message) for name, message in every.items()}

    allowed = {name for name, result in outcomes.items() if result == "allowed"}
    assert allowed == ALLOWED.get(state, set(every) - {"hello", "claim"})
    assert {outcomes[name] for name in set(every) - allowed} <= {"handshake_state"}


def test_every_frame_of_the_protocol_is_in_the_table(owner: Identity) -> None:
    """Channel frames belong to OPEN only, like every frame that is not of the handshake."""
    tags = {message.__struct_config__.tag for message in get_args(messages.PeerMessage)}

    assert tags - set(frames(owner)) <= {"post", "put_epoch", "subscribe"}


@pytest.mark.parametrize(
    ("state", "most"),
    [
        (LinkState.CHALLENGED, 4_096),
        (LinkState.CLAIMED, 4_096),
        (LinkState.UPLOADING, 512 << 10),
        (LinkState.OPEN, 1 << 20),
    ],
    ids=lambda value: str(value),
)
def test_each_state_has_its_largest_frame(owner: Identity, state: LinkState, most: int) -> None:
    link = in_state(state, owner)
    frame = b'{"t":"ping"' + b" " * (most - 11) + b"}"

    with pytest.raises(Malformed) as refused:
        link.receive(frame, NOW)

    assert refused.value.code == "too_large"


def test_hello_opens_the_link_for_both_ends(owner: Identity) -> None:
    peer, broker, reply = answered(owner)

    received = broker.receive(reply, NOW)
    assert isinstance(received, HelloReceived)
    accepted = broker.accept_hello(7, ZERO_DIGEST, sth(owner), 3, NOW)
    result = peer.receive(accepted, NOW)

    assert (received.hello.member, received.hello.mesh) == (owner.id, owner.mesh)
    assert isinstance(result, Opened)
    assert (result.audit_n, result.queued) == (7, 3)
    assert (peer.state, broker.state) == (LinkState.OPEN, LinkState.OPEN)


def test_claim_proves_the_invite(owner: Identity) -> None:
    peer, broker = peer_link(LinkHolder(INVITE, owner.mesh[:32])), broker_link()
    greeted = peer.receive(broker.challenge(), NOW)
    assert isinstance(greeted, Greeted)
    assert greeted.reply is not None

    received = broker.receive(greeted.reply, NOW)
    peer.receive(broker.accept_claim(messages.Claimed(mesh=owner.mesh, seq=0, state="open")), NOW)

    assert received == ClaimReceived(INVITE.public, owner.mesh[:32])  # type: ignore[arg-type]
    assert peer.state is broker.state is LinkState.CLAIMED


def test_peer_answers_no_challenge_for_another_address(owner: Identity) -> None:
    """A18: somebody relays the real broker's challenge."""
    with pytest.raises(HandshakeRefused) as refused:
        peer_link(owner, "wss://evil.example/ws").receive(broker_link().challenge(), NOW)

    assert refused.value.code == "origin"


def test_peer_answers_no_broker_with_another_key(owner: Identity) -> None:
    impostor = BrokerLink(primitives.signing_key(os.urandom(32)), ORIGIN, NONCE, NOW)

    with pytest.raises(HandshakeRefused) as refused:
        peer_link(owner).receive(impostor.challenge(), NOW)

    assert refused.value.code == "broker_key"


def test_challenge_is_answered_once(owner: Identity) -> None:
    _, broker, reply = answered(owner)
    broker.receive(reply, NOW)

    with pytest.raises(HandshakeRefused) as refused:
        broker.receive(reply, NOW)

    assert refused.value.code == "handshake_state"


def test_late_answer_to_a_challenge_is_refused(owner: Identity) -> None:
    _, broker, reply = answered(owner)

    with pytest.raises(HandshakeRefused) as refused:
        broker.receive(reply, UnixMillis(NOW + limits.CHALLENGE_LIFETIME_MS + 1))

    assert refused.value.code == "handshake_timeout"


def test_hello_of_another_link_is_refused(owner: Identity) -> None:
    """A replayed hello answers a nonce that this link never sent."""
    _, _, reply = answered(owner)
    other = BrokerLink(BROKER, ORIGIN, b"m" * 32, NOW)

    with pytest.raises(HandshakeRefused) as refused:
        other.receive(reply, NOW)

    assert refused.value.code == "hello_binding"


def test_stolen_attestation_without_its_session_is_refused(owner: Identity) -> None:
    """A19: the thief signs with a key of its own."""
    thief = identity.session_keys(os.urandom(64))
    challenge = handshake.ChallengeBody(BrokerId(BROKER.public), NONCE.hex(), ORIGIN)
    statement = handshake.make_hello(challenge, thief, owner.mesh, owner.id, 0, owner.roster.head, b"c" * 16, NOW)

    with pytest.raises((HandshakeRefused, BadSignature, Malformed)):
        broker_link().receive(codec.encode_message(messages.Hello(h=statement, att=owner.attestation())), NOW)


def test_acknowledgement_for_another_nonce_does_not_open_the_link(owner: Identity) -> None:
    peer, _, _ = answered(owner)
    other, broker = PeerLink(ORIGIN, BrokerId(BROKER.public), hello(owner), b"d" * 16, NOW), broker_link()
    greeted = other.receive(broker.challenge(), NOW)
    assert isinstance(greeted, Greeted)
    assert greeted.reply is not None
    broker.receive(greeted.reply, NOW)

    with pytest.raises(HandshakeRefused) as refused:
        peer.receive(broker.accept_hello(0, ZERO_DIGEST, sth(owner), 0, NOW), NOW)

    assert refused.value.code == "hello_binding"


@pytest.mark.parametrize("make", [messages.Refused, messages.Closing], ids=["refused", "closing"])
def test_refusal_during_the_handshake_reaches_the_caller(
    owner: Identity, make: Callable[..., messages.Refused | messages.Closing]
) -> None:
    peer, _, _ = answered(owner)

    with pytest.raises(Refused) as refused:
        peer.receive(codec.encode_message(make(code="unknown_mesh", retry_after_ms=5)), NOW)

    assert (refused.value.code, refused.value.retry_after_ms) == ("unknown_mesh", 5)


def test_unknown_code_of_a_later_broker_becomes_invalid(owner: Identity) -> None:
    peer, _, _ = answered(owner)

    with pytest.raises(Refused) as refused:
        peer.receive(codec.encode_message(messages.Closing(code="solar_flare")), NOW)

    assert (refused.value.code, refused.value.detail) == ("invalid", "solar_flare")


def test_deadlines_are_the_handshake_then_the_lease(owner: Identity) -> None:
    fresh = broker_link()
    _, open_link = opened(owner)
    later = UnixMillis(NOW + 10_000)
    open_link.receive(codec.encode_message(messages.Ping()), later)

    assert fresh.next_deadline() == NOW + limits.HANDSHAKE_TIMEOUT_MS
    assert fresh.handle_deadline(fresh.next_deadline())
    assert not open_link.handle_deadline(UnixMillis(NOW + limits.PRESENCE_LEASE_MS))
    assert open_link.handle_deadline(UnixMillis(later + limits.PRESENCE_LEASE_MS))


def test_a_peer_that_always_has_something_to_send_asks_for_the_head_all_the_same(owner: Identity) -> None:
    """A head that was signed anew comes with the answer to a ping alone."""
    peer, _ = opened(owner)
    pings = []

    for second in range(0, 130, 5):
        now = UnixMillis(NOW + second * limits.SECOND_MS)
        peer.heard_at = now
        ping = peer.handle_deadline(now)
        pings += [second] if ping is not None else []
        peer.encode(messages.ListPeers(rid=1), now)

    assert pings == [60, 120]


def test_peer_pings_when_it_was_silent_and_gives_a_silent_broker_up(owner: Identity) -> None:
    peer, _ = opened(owner)
    due = peer.next_deadline()

    early, ping = peer.handle_deadline(UnixMillis(due - 1)), peer.handle_deadline(due)
    assert ping is not None
    with pytest.raises(HandshakeRefused) as silent:
        peer.handle_deadline(UnixMillis(NOW + limits.PRESENCE_LEASE_MS))

    assert early is None
    assert isinstance(codec.decode_peer_message(ping), messages.Ping)
    assert due == NOW + limits.PING_INTERVAL_MS
    assert silent.value.code == "handshake_timeout"


def test_attestation_outside_its_time_opens_no_link(owner: Identity) -> None:
    """A29: the clock of the broker decides, five minutes of skew allowed at its start."""
    expired = identity.attest(owner.sign, owner.mesh, owner.session, UnixMillis(NOW - 10_000), 5_000)
    early = identity.attest(owner.sign, owner.mesh, owner.session, UnixMillis(NOW + 10 * 60_000), 60_000)

    for attestation in (expired, early):
        peer = PeerLink(ORIGIN, None, replace(hello(owner), attestation=attestation), b"c" * 16, NOW)
        broker = broker_link()
        greeted = peer.receive(broker.challenge(), NOW)
        assert isinstance(greeted, Greeted)
        assert greeted.reply is not None
        with pytest.raises(HandshakeRefused) as refused:
            broker.receive(greeted.reply, NOW)
        assert refused.value.code == "hello"


def test_head_of_the_acknowledgement_is_handed_on_unverified(owner: Identity) -> None:
    """What it proves is for whoever holds the roster to say."""
    peer, broker, reply = answered(owner)
    broker.receive(reply, NOW)
    forged = statements.Statement("{}", "k", "s")

    result = peer.receive(broker.accept_hello(0, Digest(ZERO_DIGEST), forged, 0, NOW), NOW)

    assert isinstance(result, Opened)
    assert result.sth == forged
