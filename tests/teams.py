"""A broker and several real peers in the test's own process, that come, go and talk in channels."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import claudemesh
from claudemesh import transport
from claudemesh.broker.app import Broker
from claudemesh.errors import Unreachable
from claudemesh.peer import Peer, Received, Runtime, Tempo
from claudemesh.peer.line import Connect, Pipe
from tests.brokers import serving

TEMPO: Final = Tempo(
    request_timeout_ms=10_000, reconnect_min_ms=20, reconnect_max_ms=200, receipt_delay_ms=10, disk_retry_ms=200
)
RUNTIME: Final = Runtime(tempo=TEMPO)
PATIENCE_S: Final = 60.0
"""Only ends a test that would hang."""


class Valve:
    """A network between a peer and its broker that loses the frames it is told to lose."""

    def __init__(self) -> None:
        self.loses_out: Callable[[bytes], bool] = lambda _frame: False
        self.loses_in: Callable[[bytes], bool] = lambda _frame: False
        self.cuts_after: Callable[[bytes], bool] = lambda _frame: False
        """The link ends once such a frame is on its way; its answer never comes."""
        self.lost = 0

    async def connect(self, url: str) -> Pipe:
        return _Throttled(await transport.connect(url), self)


class _Throttled:
    def __init__(self, pipe: Pipe, valve: Valve) -> None:
        self._pipe = pipe
        self._valve = valve
        self._deaf = False

    async def send(self, frame: bytes) -> None:
        if self._valve.loses_out(frame):
            self._valve.lost += 1
            return
        await self._pipe.send(frame)
        if self._valve.cuts_after(frame):
            self._deaf = True
            self._valve.lost += 1

    async def recv(self) -> bytes:
        while True:
            frame = await self._pipe.recv()
            if self._deaf:
                raise Unreachable("link_lost", "the valve closed")
            if not self._valve.loses_in(frame):
                return frame
            self._valve.lost += 1

    async def close(self) -> None:
        await self._pipe.close()


def of_type(*types: str) -> Callable[[bytes], bool]:
    """Frames of these types."""
    return lambda frame: json.loads(frame)["t"] in types


@dataclass
class Team:
    """A broker, and peers that come and go."""

    broker: Broker
    home: Path
    peers: dict[str, Peer] = field(default_factory=dict)
    stacks: dict[str, AsyncExitStack] = field(default_factory=dict)

    async def found(self, name: str) -> Peer:
        await claudemesh.create_mesh(self.broker.url, name=name, device="box", config_dir=self.home / name)
        return await self.open(name)

    async def join(self, *names: str) -> list[Peer]:
        """Admit peers, each with a link of its own, and wait until everybody knows everybody."""
        owner = next(iter(self.peers.values()))
        for name in names:
            link, _ = await owner.invite()
            await claudemesh.join(link, name=name, device="box", config_dir=self.home / name)
            await self.open(name)
        await self.acquainted()
        return [self.peers[name] for name in names]

    async def link_device(self, of: str, device: str) -> Peer:
        """Admit one more device of a user."""
        link, _ = await self.peers[of].invite(device=True)
        await claudemesh.join(link, name=of, device=device, config_dir=self.home / f"{of}.{device}")
        peer = await self.open(f"{of}.{device}")
        await self.acquainted()
        return peer

    async def open(self, name: str, connect: Connect = transport.connect) -> Peer:
        stack = self.stacks[name] = AsyncExitStack()
        peer = await stack.enter_async_context(Peer.open(self.home / name, connect=connect, runtime=RUNTIME))
        await peer.wait_connected()
        self.peers[name] = peer
        return peer

    async def close(self, name: str) -> None:
        """Take a peer offline; `open` brings it back."""
        del self.peers[name]
        await self.stacks.pop(name).aclose()

    async def acquainted(self) -> None:
        """Wait until every peer has heard the names of all others."""
        wanted = {name if "." in name else f"{name}.box" for name in self.peers}
        for peer in self.peers.values():
            await eventually(lambda peer=peer: wanted <= {peer.address_of(one) for one in self._ids()}, "names")

    def _ids(self) -> list[Any]:
        return [peer.id for peer in self.peers.values()]


@asynccontextmanager
async def team(
    home: Path, owner: str, *others: str, limits: dict[str, int] | None = None
) -> AsyncIterator[tuple[Team, list[Peer]]]:
    async with serving(home, limits=limits) as broker:
        made = Team(broker, home)
        try:
            founder = await made.found(owner)
            yield made, [founder, *(await made.join(*others))]
        finally:
            for name in list(made.peers):
                await made.close(name)


async def eventually(condition: Callable[[], Any], what: str) -> None:
    """Poll until it is so."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.02)
    except TimeoutError as error:
        raise AssertionError(f"never became true: {what}") from error


async def history_of(peer: Peer, channel: str, count: int = 1) -> list[Received]:
    """What a peer keeps of a channel, once that are so many posts."""
    async with asyncio.timeout(PATIENCE_S):
        while len(found := await peer.channel_history(channel)) < count:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.02)
    return found


async def knows_channel(peer: Peer, name: str) -> None:
    """Wait until a peer has been told a channel's name."""
    await eventually(lambda: name in {channel.name for channel in peer.channels()}, name)


async def take(peer: Peer, count: int) -> list[Received]:
    """The next `count` unseen messages."""
    taken: list[Received] = []
    async with asyncio.timeout(PATIENCE_S):
        async for message in peer.messages():
            taken.append(message)
            if len(taken) == count:
                break
    await peer.mark_seen(*taken)
    return taken


async def silent(peer: Peer, seconds: float = 0.5) -> None:
    """Require that nothing unseen is there, nor arrives for a while."""
    await asyncio.sleep(seconds)
    assert await peer.inbox() == []
