"""The instrument before the measurement: left alone the hostile broker is honest, and its lies reach the wire."""

import os

import pytest

from claudemesh.crypto import statements
from claudemesh.protocol import heads, messages
from claudemesh.protocol.handshake import make_challenge, make_claim
from claudemesh.protocol.messages import Log
from claudemesh.types import UnixMillis
from tests.attacks.hostile_broker import HostileBroker
from tests.attacks.hostile_store import HeldMesh
from tests.attacks.wire_member import WireMember, dialled


def found(broker: HostileBroker) -> tuple[WireMember, HeldMesh]:
    """A mesh with one owner, held by the broker."""
    alice = WireMember("alice")
    held = broker.hold([alice.genesis(broker.key.public)])
    alice.follow(*held.main.entries)
    return alice, held


def admit(held: HeldMesh, owner: WireMember, name: str) -> WireMember:
    """Add one member to the log, by an honest invite."""
    link, member = owner.new_link("ws://unused/ws"), WireMember(name)
    entry = owner.invite(link)
    held.main.append(entry)
    owner.follow(entry)
    member.follow(*held.main.entries)
    held.main.append(member.admission(link.invite_key()))
    owner.follow(held.main.entries[-1])
    member.follow(held.main.entries[-1])
    return member


async def test_left_alone_the_hostile_broker_is_honest() -> None:
    """A joiner that knows only the link gets in, and a message arrives once and is deleted by its ack."""
    async with HostileBroker.listening() as broker:
        alice, held = found(broker)
        link = alice.new_link(broker.url)
        held.main.append(alice.invite(link))
        bob = WireMember("bob")

        async with dialled(broker.url) as wire:
            challenge = await wire.challenge()
            claim = make_claim(challenge, link.invite_key(), link.mesh_prefix, bob.clock())
            await wire.send(messages.Claim(c=claim))
            claimed = await wire.expect(messages.Claimed)
            await wire.send(messages.Sync(rid=1, seq=0))
            bob.follow(*(await wire.expect(Log)).entries)
            refusal = await wire.append(bob.admission(link.invite_key()))
        async with bob.dial(broker.url) as bobs, alice.dial(broker.url) as alices:
            letter = alice.write(bob.id, bob.box.public, "hello")
            await alices.send(letter.frame)
            accepted = await alices.expect(messages.Accepted)
            push = await bobs.expect(messages.Push)
            await bobs.send(messages.Ack(q=[push.d[0].q]))
            await broker.acknowledged(bob.id, push.d[0].q)

            assert (claimed.state, refusal) == ("open", "")
            body = statements.open_statement(accepted.st, "accept", broker.key.public)
            assert [row["id"] for row in body["r"]] == [letter.id]
            assert bytes(push.d[0].e) == letter.frame
            assert bob.read(bytes(push.d[0].e), push.atts[0]).body == b"hello"
            assert held.mail.of(bob.id) == []


async def test_an_append_on_another_head_loses() -> None:
    """Compare-and-swap, as the honest wire promises it."""
    async with HostileBroker.listening() as broker:
        alice, held = found(broker)
        stale = alice.entry("chan", chan="11" * 16, kind="open")
        held.main.append(alice.entry("chan", chan="22" * 16, kind="open"))
        alice.follow(*held.main.entries[1:])

        async with alice.dial(broker.url) as wire:
            refusal = await wire.append(stale)

    assert refusal == "cas"


async def test_a_forked_peer_is_shown_another_signed_history() -> None:
    """Each view has a valid head of its own, which is what makes a fork provable."""
    async with HostileBroker.listening() as broker:
        alice, held = found(broker)
        bob, carol = admit(held, alice, "bob"), admit(held, alice, "carol")
        held.views[carol.id] = held.main.copy()
        held.main.append(alice.entry("chan", chan="33" * 16, kind="open"))
        held.views[carol.id].append(alice.entry("chan", chan="44" * 16, kind="open"))

        shown = {}
        for reader in (bob, carol):
            async with reader.dial(broker.url):
                shown[reader.name] = reader.roster.head

    assert shown["bob"] != shown["carol"]
    assert all(heads.head_signers(reader.roster, reader.roster.seq) == {broker.key.public} for reader in (bob, carol))


async def test_forged_entries_and_frames_are_sent_as_they_are() -> None:
    """Nothing between the lie and the wire repairs it."""
    async with HostileBroker.listening() as broker:
        alice, held = found(broker)
        held.main.force(held.main.entries[0])
        broker.lies.outgoing = lambda link, frame: (frame, b"not a frame") if isinstance(frame, Log) else (frame,)

        async with dialled(broker.url) as wire:
            await wire.send(alice.hello(await wire.challenge()))
            log = await wire.expect(Log)
            raw = await wire.socket.receive_str()

    assert [entry.b for entry in log.entries] == [held.main.entries[0].b]
    assert raw == "not a frame"


async def test_a_relayed_challenge_replaces_ones_own() -> None:
    """The broker can present what another broker signed."""
    async with HostileBroker.listening() as broker, HostileBroker.listening() as other:
        foreign = make_challenge(other.key, other.url, os.urandom(32), UnixMillis(1))
        broker.lies.challenge = lambda link: foreign

        async with dialled(broker.url) as wire:
            challenge = await wire.challenge()

    assert (challenge.broker, challenge.origin) == (other.key.public, other.url)


@pytest.mark.parametrize("length", [1, 2])
async def test_a_rolled_back_view_is_signed_like_any_other(length: int) -> None:
    """A shorter log comes with a head that is valid for it."""
    async with HostileBroker.listening() as broker:
        alice, held = found(broker)
        admit(held, alice, "bob")
        held.main = held.main.copy(length)
        reader = WireMember("reader")
        reader.sign, reader.session = alice.sign, alice.session
        reader.follow(held.main.entries[0])

        async with reader.dial(broker.url):
            assert reader.roster.seq == length - 1
