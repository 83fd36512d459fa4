"""Two real peers in the test's own process, so that a clock or an interval can be what the test wants it to be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import claudemesh
from claudemesh import Peer
from claudemesh.peer import Received, Runtime, Tempo
from claudemesh.peer.events import LinkDown
from claudemesh.peer.runtime import wall_clock
from claudemesh.protocol.limits import MINUTE_MS
from claudemesh.types import UnixMillis

IMPATIENT: Final = Tempo(
    request_timeout_ms=2_000, reconnect_min_ms=20, reconnect_max_ms=200, receipt_delay_ms=10, disk_retry_ms=200
)


class Homes(NamedTuple):
    """The configuration directories of two members of one mesh."""

    alice: Path
    bob: Path


async def enrol(alice: Path, bob: Path, broker_url: str) -> Homes:
    """Alice founds a mesh, Bob joins it by her link; each has heard the other's name."""
    await claudemesh.create_mesh(broker_url, name="alice", device="box", config_dir=alice)
    async with opened(alice) as one:
        link, _ = await one.invite()
        await claudemesh.join(link, name="bob", device="box", config_dir=bob)
        async with opened(bob) as other:
            await knows(one, "bob.box")
            await knows(other, "alice.box")
    return Homes(alice, bob)


@asynccontextmanager
async def opened(directory: Path, runtime: Runtime | None = None) -> AsyncIterator[Peer]:
    """The peer of a directory, impatient."""
    async with Peer.open(directory, runtime=runtime or Runtime(tempo=IMPATIENT)) as peer:
        yield peer


async def knows(peer: Peer, address: str) -> None:
    """Wait until a peer has been told a name."""
    async with asyncio.timeout(30):
        while address not in {one.address for one in await peer.peers()}:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.02)


async def link_down(peer: Peer) -> LinkDown:
    """Wait until a peer loses its link, or fails to open one."""
    async for event in peer.events():
        if isinstance(event, LinkDown):
            return event
    raise AssertionError("the peer was closed")


async def next_message(peer: Peer) -> Received:
    """The next unseen message."""
    async with asyncio.timeout(30):
        async for message in peer.messages():
            return message
    raise AssertionError("the peer was closed")


class Clock:
    """A clock that can be set while a peer goes by it."""

    def __init__(self, minutes: int = 0) -> None:
        self.minutes_ahead = minutes

    @property
    def runtime(self) -> Runtime:
        return Runtime(now=lambda: UnixMillis(wall_clock() + self.minutes_ahead * MINUTE_MS), tempo=IMPATIENT)


def shifted(minutes: int) -> Runtime:
    """A clock that is so many minutes ahead (or behind, when negative)."""
    return Clock(minutes).runtime
