"""A peer whose disk is full: it acknowledges nothing that it cannot keep, says so, and goes on when there is room."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from claudemesh import Peer
from claudemesh.broker.app import Broker, Listen, Settings
from claudemesh.errors import LocalError
from claudemesh.peer import Runtime
from claudemesh.peer.events import MessageArrived
from claudemesh.protocol.delivery import Stage
from claudemesh.types import MessageId
from tests.faults.peers import IMPATIENT, Homes, enrol, link_down, opened
from tests.faults.small_disk import SmallDisk, small_disk

LARGE = "x" * 100_000
MANY = 200
"""More large messages than the disk holds."""


class Place(NamedTuple):
    """Bob's configuration directory is on a disk that can be filled; everything else is not."""

    disk: SmallDisk
    homes: Homes


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    with small_disk(tmp_path) as disk:
        settings = Settings(
            listen=Listen("127.0.0.1", 0), database=tmp_path / "broker.db", log_file=tmp_path / "broker.log"
        )
        async with Broker(settings) as broker:
            yield Place(disk, await enrol(tmp_path / "alice", disk.path / "bob", broker.url))


async def send_until_refused(bob: Peer) -> list[MessageId]:
    """Send ever smaller messages until not even the smallest can be stored; the ids of those that could."""
    stored = []
    for text in (LARGE, LARGE[:10_000], "x"):
        with pytest.raises(LocalError, match="disk"):  # noqa: PT012
            for _ in range(MANY):
                stored.append((await bob.send("alice.box", text)).id)
    return stored


async def stages(peer: Peer, ids: list[MessageId]) -> set[Stage]:
    """The stages that these messages have reached."""
    return {(await peer.status(one)).recipients[0].shown.stage for one in ids}


async def test_a_recipient_keeps_messages_at_the_broker_while_its_disk_is_full(place: Place) -> None:
    """No receipt for what is not in the inbox; with room again everything arrives, once."""
    async with opened(place.homes.alice) as alice, opened(place.homes.bob) as bob:
        await bob.wait_connected()
        place.disk.fill()
        ids = [(await alice.send("bob.box", LARGE)).id for _ in range(30)]
        for one in ids:
            await alice.wait_for(one, Stage.ACCEPTED)
        assert ((await link_down(bob)).code, await stages(alice, ids)) == ("disk", {Stage.ACCEPTED})

        place.disk.free()

        for one in ids:
            await alice.wait_for(one, Stage.DELIVERED)
        assert [one.id for one in await bob.inbox()] == ids


async def test_a_sender_is_told_that_nothing_was_queued(place: Place) -> None:
    """The error comes before any id is believed; what was queued before goes out, what was refused does not."""
    async with opened(place.homes.alice) as alice, opened(place.homes.bob) as bob:
        await bob.wait_connected()
        queued = [(await bob.send("alice.box", LARGE)).id for _ in range(5)]
        place.disk.fill()
        queued += await send_until_refused(bob)

        place.disk.free()

        for one in queued:
            await bob.wait_for(one, Stage.DELIVERED)
        assert [one.id for one in await alice.inbox(limit=MANY)] == queued


async def read_something(bob: Peer) -> None:
    await bob.mark_seen(*await bob.inbox())


async def open_a_session(bob: Peer) -> None:
    await bob.open_session("agent")


async def receive_nothing(bob: Peer) -> None:
    """Only the receipts that are due want to be written."""


@pytest.mark.parametrize("act", [read_something, open_a_session, receive_nothing])
async def test_what_a_peer_does_by_itself_outlives_a_full_disk(
    place: Place, act: Callable[[Peer], Awaitable[None]]
) -> None:
    """Receipts, names and the roster are written in the background: a write that fails there is done later."""
    slow = Runtime(tempo=dataclasses.replace(IMPATIENT, receipt_delay_ms=500))
    async with opened(place.homes.alice) as alice, opened(place.homes.bob, slow) as bob:
        await bob.wait_connected()
        first = await alice.send("bob.box", "before it is full")
        async for event in bob.events():
            if isinstance(event, MessageArrived):
                break
        place.disk.fill()
        await send_until_refused(bob)
        with suppress(LocalError):
            await act(bob)
        await asyncio.sleep(1)  # the receipt of the first message became due, and could not be written

        place.disk.free()
        second = await alice.send("bob.box", "after")

        for one in (first, second):
            await alice.wait_for(one.id, Stage.DELIVERED)
        sent = await bob.send("alice.box", "and back")
        await bob.wait_for(sent.id, Stage.DELIVERED)
