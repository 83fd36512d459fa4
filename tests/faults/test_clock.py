"""A machine with a wrong clock: no link while it is wrong, nothing lost, and all goes on when it is set."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claudemesh.broker.app import Broker, Listen, Settings
from claudemesh.errors import HandshakeRefused, Unreachable
from claudemesh.protocol.delivery import Stage
from tests.faults.peers import Clock, Homes, enrol, link_down, next_message, opened, shifted


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    """A broker with the right clock."""
    settings = Settings(
        listen=Listen("127.0.0.1", 0), database=tmp_path / "broker.db", log_file=tmp_path / "broker.log"
    )
    async with Broker(settings) as running:
        yield running


@pytest.fixture
async def homes(tmp_path: Path, broker: Broker) -> Homes:
    """Two members of one mesh, both closed."""
    return await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)


@pytest.mark.parametrize("minutes", [20, 3, -3, -20])
async def test_a_wrong_clock_keeps_the_link_closed_and_loses_nothing(homes: Homes, minutes: int) -> None:
    """Otherwise a slow clock would take honest messages for dated in the future, and drop what was accepted."""
    async with opened(homes.alice) as alice:
        async with opened(homes.bob, shifted(minutes)) as bob:
            to_bob = await alice.send("bob.box", "while your clock was wrong")
            to_alice = await bob.send("alice.box", "my clock was wrong")
            await alice.wait_for(to_bob.id, Stage.ACCEPTED)
            down = await link_down(bob)
            with pytest.raises(Unreachable, match="clock"):
                await bob.wait_connected(1)
            quarantined = await bob.quarantine()
            assert (down.code, quarantined) == ("clock", [])

        async with opened(homes.bob) as bob:
            received = await next_message(bob), await next_message(alice)
            assert [one.text for one in received] == ["while your clock was wrong", "my clock was wrong"]
            for sender, sent in ((alice, to_bob), (bob, to_alice)):
                await sender.wait_for(sent.id, Stage.DELIVERED)


@pytest.mark.parametrize("minutes", [20, 6, -6, -20])
async def test_a_clock_that_is_set_while_the_link_is_open_loses_nothing(homes: Homes, minutes: int) -> None:
    """Nothing is sealed or judged by a time that the broker has not compared with its own."""
    clock = Clock()
    async with opened(homes.alice) as alice, opened(homes.bob, clock.runtime) as bob:
        await asyncio.gather(alice.wait_connected(), bob.wait_connected())
        down = asyncio.create_task(link_down(bob))
        await asyncio.sleep(0)
        clock.minutes_ahead = minutes
        to_bob = await alice.send("bob.box", "while your clock was wrong")
        to_alice = await bob.send("alice.box", "my clock was wrong")
        await alice.wait_for(to_bob.id, Stage.ACCEPTED)
        assert "clock" in (await down).detail
        with pytest.raises(Unreachable, match="clock"):
            await bob.wait_connected(1)

        clock.minutes_ahead = 0

        for sender, sent in ((alice, to_bob), (bob, to_alice)):
            await sender.wait_for(sent.id, Stage.DELIVERED)
        assert (await alice.quarantine(), await bob.quarantine()) == ([], [])


@pytest.mark.parametrize("minutes", [20, -20])
async def test_a_peer_that_began_with_a_wrong_clock_connects_when_it_is_set(homes: Homes, minutes: int) -> None:
    """As a computer without a battery for its clock does: no restart is needed, and its sessions are dated anew."""
    clock = Clock(minutes)
    async with opened(homes.alice) as alice, opened(homes.bob, clock.runtime) as bob:
        session = await bob.open_session("work")
        sent = await bob.send("alice.box", "from the wrong time"), await session.send("alice.box", "and an agent")
        assert (await link_down(bob)).code == "clock"

        clock.minutes_ahead = 0

        for one in sent:
            await bob.wait_for(one.id, Stage.DELIVERED)
        assert await alice.quarantine() == []


async def test_the_refusal_says_which_clock_to_set_and_by_how_much(homes: Homes) -> None:
    """A person can act on it without knowing what a handshake is."""
    async with opened(homes.bob, shifted(-20)) as bob:
        down = await link_down(bob)

    assert "20 minutes behind" in down.detail
    assert "clock" in HandshakeRefused("clock").hint()


@pytest.mark.parametrize("minutes", [2, -2])
async def test_clocks_that_differ_a_little_do_not_matter(homes: Homes, minutes: int) -> None:
    """Two peers that each differ by less than half of the skew agree within the whole of it."""
    async with opened(homes.alice, shifted(-minutes)) as alice, opened(homes.bob, shifted(minutes)) as bob:
        sent = await alice.send("bob.box", "there"), await bob.send("alice.box", "and back")

        for sender, one in zip((alice, bob), sent, strict=True):
            await sender.wait_for(one.id, Stage.DELIVERED)
        assert (await alice.quarantine(), await bob.quarantine()) == ([], [])
