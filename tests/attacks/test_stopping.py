"""A31: a broker cannot keep a peer from stopping, nor from going on."""

import asyncio

import pytest

from claudemesh.protocol import messages
from tests.attacks.clock import PATIENCE_S
from tests.attacks.hostile_link import HostileLink
from tests.attacks.worlds import World

NONSENSE = [
    b"",
    b"{",
    b"null",
    b'{"t":"challenge"}',
    b'{"t":"log","seq":0,"entries":[{"b":"{}","s":{}}]}',
    b'{"t":"log","seq":-1,"entries":[]}',
    b'{"t":"push","d":[{"q":1,"at":1}]}',
    b'{"t":"push","d":[{"q":1,"at":1,"e":[]}],"atts":[]}',
    b'{"t":"accepted","st":{"b":"","k":"","s":""}}',
    b'{"t":"refused","code":"\\ud800","rid":0}',
    b'{"t":"sys","st":{"b":"{}","k":"00","s":"00"}}',
    b'{"t":"closing","code":"' + b"x" * 128 + b'","retry_after_ms":9007199254740991}',
    b'{"t":"pong","sth":{"b":"{}","k":"00","s":"00"}}',
    b'{"t":"appended","rid":1,"seq":0}',
    b"[" * 100_000,
    b"\xff\xfe",
    b'{"t":"pong","x":"' + b"x" * (5 << 20) + b'"}',
]


@pytest.mark.parametrize("frame", NONSENSE, ids=lambda frame: frame[:24].decode("latin-1"))
async def test_a31_nonsense_of_a_broker_stops_no_peer(theatre: World, frame: bytes) -> None:
    """A31: the peer drops the link or the frame, and reads the honest message that follows."""
    bob = await theatre.victim("bob")

    link = await theatre.broker.connected(bob.id)
    await link.emit_raw(frame)
    await asyncio.sleep(0.05)
    await theatre.broker.drop_links(bob.id)
    await theatre.broker.connected(bob.id)
    await theatre.probe(bob)

    assert "internal" not in bob.link_errors


async def test_a31_a_peer_stops_while_its_links_fail(theatre: World) -> None:
    """A31: whatever fails at the moment of stopping, stopping wins; eight peers, each at another moment."""
    victims = [await theatre.victim(f"peer{number}") for number in range(8)]

    for round_ in range(3):
        for delay, victim in enumerate(victims):
            link = theatre.broker.link_of(victim.id)

            async def fail(link: HostileLink | None = link, after: int = delay) -> None:
                await asyncio.sleep(after * 0.0003)
                if link is not None:
                    await link.emit_raw(b"{" if after % 2 else b'{"t":"closing","code":"draining"}')
                    link.abort()

            failing = asyncio.create_task(fail())
            await asyncio.wait_for(victim.stop(), PATIENCE_S)
            await failing
        if round_ < 2:
            for victim in victims:
                await victim.start()
                await theatre.broker.connected(victim.id)
    theatre.victims.clear()


async def test_a31_a_broker_that_answers_nothing_stops_no_peer(theatre: World) -> None:
    """A31: requests run into their timeout, the link is given up, and the next one works."""
    bob = await theatre.victim("bob")
    theatre.broker.lies.incoming = lambda link, frame: not isinstance(frame, messages.Hello)
    await theatre.broker.drop_links(bob.id)
    await theatre.broker.connected(bob.id)

    theatre.broker.lies.incoming = lambda link, frame: False
    await theatre.broker.drop_links(bob.id)
    await theatre.broker.connected(bob.id)
    await theatre.probe(bob)

    assert "probe" in bob.texts


async def test_a31_a_broker_cannot_fill_a_peers_memory_with_deliveries(theatre: World) -> None:
    """A31: deliveries whose attestation never comes are held up to a bound; beyond it the link is given up."""
    bob = await theatre.victim("bob")
    link = await theatre.broker.connected(bob.id)
    envelope = (
        f'{{"t":"send","k":"dm","mesh":"{"0" * 64}","from":"{"1" * 64}","to":"{bob.id}","kid":"{"2" * 64}",'
        f'"id":"{"3" * 32}","prio":"next","rs":0,"att":"{"4" * 64}","nonce":"{"A" * 32}","ct":"AAAA"}}'
    )
    rows = ",".join(f'{{"q":{1_000_000 + number},"at":1,"e":{envelope}}}' for number in range(256))

    for _ in range(12):
        await link.emit_raw(f'{{"t":"push","d":[{rows}]}}')
    await theatre.until(lambda: theatre.broker.link_of(bob.id) is not link, "the link is given up")

    await theatre.broker.connected(bob.id)
    await theatre.probe(bob)
    assert "too_large" in bob.link_errors


async def test_n08_a_log_without_an_end_keeps_no_joiner_busy(theatre: World) -> None:
    """N08: a broker that always promises more, and sends again what it has sent, is left at once."""
    link = await theatre.invite()
    broker = theatre.broker

    def endless(at: HostileLink, frame: messages.BrokerMessage) -> list[messages.BrokerMessage]:
        if isinstance(frame, messages.Log) and frame.rid is not None:
            return [messages.Log(rid=frame.rid, seq=0, entries=at.view.entries, more=True)]
        return [frame]

    broker.lies.outgoing = endless
    code = await theatre.try_to_join("carol", link.text())

    assert code == "seq"
    assert len(broker.heard(messages.Sync)) <= 3
