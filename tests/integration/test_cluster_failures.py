"""Nodes, bus and database fail under real peers: nothing is lost, nothing comes twice (docs/spec/cluster.md §6)."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from claudemesh import Peer
from claudemesh.broker.heart import LAPSE_MS
from tests.balancer import Balancer, balancer
from tests.brokers import BrokerProcess
from tests.clusters import until
from tests.faults.peers import enrol, opened
from tests.nats_server import NatsServer, nats_server
from tests.postgres import PostgresServer, postgres_server

MESSAGES = 60
PAUSE_S = 0.05
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


class Nodes:
    """Node processes behind one name."""

    def __init__(self, directory: Path, database: str, nats: NatsServer, front: Balancer) -> None:
        self._directory = directory
        self._database = database
        self.nats = nats
        self.front = front
        self.running: list[BrokerProcess] = []
        self._started = 0

    async def start(self) -> BrokerProcess:
        """One more node."""
        self._started += 1
        directory = self._directory / f"node-{self._started}"
        directory.mkdir()
        node = BrokerProcess(
            directory,
            *("--database", self._database, "--bus", self.nats.url, "--key", str(self._directory / "broker.key")),
            *("--origin", self.front.url, "--limit", "failed_handshakes_per_minute=10000"),
        )
        await node.start()
        self.running.append(node)
        self.front.ports.append(node.port)
        return node

    async def kill(self, node: BrokerProcess) -> None:
        """SIGKILL."""
        await node.kill()
        self._forget(node)

    async def stop(self, node: BrokerProcess) -> int:
        """SIGTERM; returns the exit code."""
        code = await node.terminate()
        self._forget(node)
        return code

    def busiest(self) -> BrokerProcess:
        """A node that has links of peers."""
        return max(self.running, key=lambda node: self.front.open[node.port])

    def _forget(self, node: BrokerProcess) -> None:
        self.running.remove(node)
        self.front.ports.remove(node.port)


@asynccontextmanager
async def nodes_of(directory: Path, database: str, count: int = 2) -> AsyncIterator[Nodes]:
    async with nats_server() as nats, balancer() as front:
        nodes = Nodes(directory, database, nats, front)
        try:
            for _ in range(count):
                await nodes.start()
            yield nodes
        finally:
            for node in list(nodes.running):
                if node.process is not None and node.process.returncode is None:
                    node.process.send_signal(signal.SIGCONT)
                    await node.kill()


@pytest.fixture
async def nodes(tmp_path: Path, postgres: PostgresServer) -> AsyncIterator[Nodes]:
    async with nodes_of(tmp_path, postgres.tcp_url(postgres.database())) as running:
        yield running


class Talk:
    """Two peers that write to each other all the time."""

    def __init__(self, alice: Peer, bob: Peer) -> None:
        self._peers = {"alice": alice, "bob": bob}
        self.heard: dict[str, list[str]] = {"alice": [], "bob": []}
        self._listeners = [asyncio.create_task(self._listen(name)) for name in self._peers]

    async def say(self, count: int) -> None:
        """Each writes `count` messages to the other, and hears those of the other."""
        begun = {name: len(heard) for name, heard in self.heard.items()}
        await asyncio.gather(*(self._say(name, begun[name], count) for name in self._peers))
        await until(lambda: all(len(self.heard[name]) >= begun[name] + count for name in self.heard), PATIENCE_S)

    async def end(self) -> None:
        """Stop listening, a moment after the last message, in which a repetition would come."""
        await asyncio.sleep(0.5)
        for listener in self._listeners:
            listener.cancel()
        await asyncio.gather(*self._listeners, return_exceptions=True)

    async def _say(self, name: str, first: int, count: int) -> None:
        other = "bob" if name == "alice" else "alice"
        for number in range(first, first + count):
            await self._peers[name].send(other, f"{name} {number}")
            await asyncio.sleep(PAUSE_S)

    async def _listen(self, name: str) -> None:
        async for message in self._peers[name].messages():
            self.heard[name].append(message.text)
            await self._peers[name].mark_seen(message)


@asynccontextmanager
async def talking(directory: Path, nodes: Nodes) -> AsyncIterator[Talk]:
    homes = await enrol(directory / "alice", directory / "bob", nodes.front.url)
    async with opened(homes.alice) as alice, opened(homes.bob) as bob:
        talk = Talk(alice, bob)
        await talk.say(5)
        yield talk
        await talk.end()


def complete(talk: Talk, count: int) -> bool:
    """Whether each heard everything that the other wrote, once."""
    expected = {
        name: sorted(f"{other} {n}" for n in range(count)) for name, other in (("alice", "bob"), ("bob", "alice"))
    }
    return {name: sorted(heard) for name, heard in talk.heard.items()} == expected


async def test_killed_nodes_lose_and_repeat_nothing(tmp_path: Path, nodes: Nodes) -> None:
    """kill -9 in the middle of traffic, twice, with a new node each time: peers go on with the nodes that are left."""
    async with talking(tmp_path, nodes) as talk:
        for _ in range(2):
            saying = asyncio.create_task(talk.say(MESSAGES))
            await asyncio.sleep(1)
            await nodes.kill(nodes.busiest())
            await asyncio.sleep(0.5)
            await nodes.start()
            await saying

    assert complete(talk, 5 + 2 * MESSAGES)


async def test_rolling_restart_loses_and_repeats_nothing(tmp_path: Path, nodes: Nodes) -> None:
    """Each node is replaced while peers write; every stop is in time and clean."""
    async with talking(tmp_path, nodes) as talk:
        saying = asyncio.create_task(talk.say(MESSAGES))
        codes = []
        for old in list(nodes.running):
            await nodes.start()
            codes.append(await nodes.stop(old))
        await saying

    assert codes == [0, 0]
    assert complete(talk, 5 + MESSAGES)


async def test_without_the_bus_mail_still_comes_and_it_recovers(tmp_path: Path, nodes: Nodes) -> None:
    """NATS is killed and comes back; peers on different nodes notice a delay at most."""
    async with talking(tmp_path, nodes) as talk:
        assert sorted(nodes.front.open[node.port] for node in nodes.running) == [1, 1]
        await nodes.nats.kill()
        await talk.say(10)
        await nodes.nats.start()
        await talk.say(10)

    assert complete(talk, 25)


async def test_a_frozen_node_is_buried_and_comes_back(tmp_path: Path, nodes: Nodes) -> None:
    """SIGSTOP for longer than the lapse: what it had leased goes elsewhere, and it harms nothing when it wakes."""
    async with talking(tmp_path, nodes) as talk:
        frozen = nodes.busiest()
        assert frozen.process is not None
        saying = asyncio.create_task(talk.say(MESSAGES))
        frozen.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(LAPSE_MS / 1_000 + 3)
        frozen.process.send_signal(signal.SIGCONT)
        await saying

    assert complete(talk, 5 + MESSAGES)


async def test_the_database_may_restart_under_the_nodes(tmp_path: Path) -> None:
    """Nothing is accepted that is not committed; when it is back, everything goes on without a restart of theirs."""
    with postgres_server() as postgres:
        async with nodes_of(tmp_path, postgres.tcp_url(postgres.database())) as nodes:
            async with talking(tmp_path, nodes) as talk:
                saying = asyncio.create_task(talk.say(MESSAGES))
                await asyncio.sleep(1)
                await asyncio.to_thread(postgres.kill)
                await asyncio.sleep(1)
                await asyncio.to_thread(postgres.start)
                await saying

    assert complete(talk, 5 + MESSAGES)
