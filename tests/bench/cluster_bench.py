"""durable_dm_per_s_cluster, what a message costs two nodes against one in the same run, and failover_s."""

import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvloop

from claudemesh import Peer
from tests.balancer import Balancer, balancer
from tests.bench import lanes, load, processes
from tests.bench.bench_mesh import BenchMesh, Speaker
from tests.bench.load import Lane
from tests.bench.report import Figure
from tests.bench.routing import LINKS, NO_LIMITS, WINDOW, load_frames
from tests.faults.peers import enrol
from tests.nats_server import NatsServer, nats_server
from tests.postgres import PostgresServer, postgres_server

MESSAGES_PER_LINK = 200
WARM_UP_PER_LINK = 50
ROUNDS = 3
FAILOVERS = 3
_FAILOVER_TIMEOUT_S = 60.0


@dataclass
class Machine:
    """Everything whose processor time a message costs."""

    nodes: list[processes.Server]
    postgres: PostgresServer
    nats: NatsServer | None

    @property
    def cpu_s(self) -> float:
        """All of it so far."""
        database = processes.family_cpu_s(self.postgres.pid, self.postgres.processes())
        return self.nodes_cpu_s + database + (0.0 if self.nats is None else processes.cpu_s(self.nats.pid))

    @property
    def nodes_cpu_s(self) -> float:
        """That of the nodes alone."""
        return sum(node.cpu_s for node in self.nodes)


@dataclass
class Round:
    """One closed loop."""

    per_s: float
    cpu_us: float
    nodes_cpu_us: float


def measure() -> dict[str, Figure]:
    """One node and two, each with a database of its own; then nodes that are killed."""
    return uvloop.run(_measure())


async def _measure() -> dict[str, Figure]:
    with processes.directory() as path:
        with postgres_server() as postgres:  # a server each: the second must not clear away the first one's rows
            one = await _durable(path, Machine([], postgres, None), "one")
        with postgres_server() as postgres:
            async with nats_server() as nats:
                two = await _durable(path, Machine([], postgres, nats), "two")
        with postgres_server() as postgres:
            async with nats_server() as nats:
                failovers = await _failovers(path, postgres.tcp_url(postgres.database()), nats)
    return _figures(one, two, failovers)


async def _durable(path: Path, machine: Machine, name: str) -> list[Round]:
    """Rounds with the links spread evenly over one node, or over two where there is a bus."""
    with contextlib.ExitStack() as stack:
        database = machine.postgres.tcp_url(machine.postgres.database())
        for number in range(1 if machine.nats is None else 2):
            bus = machine.nats.url if machine.nats is not None else None
            machine.nodes.append(stack.enter_context(_node(path / f"{name}-{number}", database, bus, path / "key")))
        mesh = await lanes.found_on(machine.nodes[0].url, LINKS)
        speakers = [mesh.speaker(index) for index in range(LINKS)]
        to_nodes = await _lanes(machine, mesh, speakers)
        await _closed(to_nodes, mesh, speakers, WARM_UP_PER_LINK)
        rounds = [await _round(machine, to_nodes, mesh, speakers) for _ in range(ROUNDS)]
        lanes.close(to_nodes)
    for turn, one in enumerate(rounds, 1):
        print(
            f"  {name}, round {turn}: {one.per_s:,.0f}/s, {one.cpu_us:.0f} µs, nodes {one.nodes_cpu_us:.0f} µs",
            flush=True,
        )
    return rounds


async def _lanes(machine: Machine, mesh: BenchMesh, speakers: list[Speaker]) -> list[Lane]:
    """A lane for each speaker, in their order, on the nodes in turn."""
    count = len(machine.nodes)
    by_node = [
        await lanes.member_lanes(node.url, mesh, speakers[number::count]) for number, node in enumerate(machine.nodes)
    ]
    return [by_node[at % count][at // count] for at in range(len(speakers))]


async def _round(machine: Machine, to_nodes: list[Lane], mesh: BenchMesh, speakers: list[Speaker]) -> Round:
    used, nodes_used = machine.cpu_s, machine.nodes_cpu_s
    seconds = await _closed(to_nodes, mesh, speakers, MESSAGES_PER_LINK)
    messages = MESSAGES_PER_LINK * len(to_nodes)
    return Round(
        messages / seconds,
        (machine.cpu_s - used) / messages * 1e6,
        (machine.nodes_cpu_s - nodes_used) / messages * 1e6,
    )


async def _closed(to_nodes: list[Lane], mesh: BenchMesh, speakers: list[Speaker], per_link: int) -> float:
    recipients = load_frames(to_nodes, mesh, speakers, per_link)
    seconds = await load.run_closed(to_nodes, WINDOW)
    load.check(to_nodes, recipients)
    return seconds


@contextlib.contextmanager
def _node(path: Path, database: str, bus: str | None, key: Path, *options: str) -> Iterator[processes.Server]:
    path.mkdir()
    port = processes.free_port()
    command = [str(Path(sys.executable).parent / "claudemesh"), "broker", "--listen", f"127.0.0.1:{port}"]
    command += ["--database", database, "--key", str(key), *options, *(() if bus is None else ("--bus", bus))]
    command += [part for name, value in NO_LIMITS.items() for part in ("--limit", f"{name}={value}")]
    with (path / "broker.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=path)
    try:
        processes.wait_ready(process, port)
        yield processes.Server(process, port)
    finally:
        processes.end(process)


async def _failovers(path: Path, database: str, nats: NatsServer) -> list[float]:
    """Kill the node of a peer and see when mail goes both ways again; seconds of each time."""
    async with balancer() as front:
        with contextlib.ExitStack() as stack:
            nodes = [
                _started(stack, path / f"front-{number}", database, nats, path / "key", front) for number in range(2)
            ]
            homes = await enrol(path / "alice", path / "bob", front.url)
            async with _patient(homes.alice) as alice, _patient(homes.bob) as bob:
                await _both_ways(alice, bob, "before")
                found = []
                for turn in range(FAILOVERS):
                    victim = max(nodes, key=lambda node: front.open[node.port])
                    nodes.remove(victim)
                    front.ports.remove(victim.port)
                    victim.process.kill()
                    started = time.perf_counter()
                    await _both_ways(alice, bob, f"turn {turn}")
                    found.append(time.perf_counter() - started)
                    nodes.append(_started(stack, path / f"front-{2 + turn}", database, nats, path / "key", front))
    return found


def _started(
    stack: contextlib.ExitStack, path: Path, database: str, nats: NatsServer, key: Path, front: Balancer
) -> processes.Server:
    node = stack.enter_context(_node(path, database, nats.url, key, "--origin", front.url))
    front.ports.append(node.port)
    return node


@contextlib.asynccontextmanager
async def _patient(directory: Path) -> AsyncIterator[Peer]:
    """A peer with the intervals that everybody has."""
    async with Peer.open(directory) as peer:
        yield peer


async def _both_ways(alice: Peer, bob: Peer, text: str) -> None:
    """Each writes to the other, and both have read it."""

    async def hears(peer: Peer) -> None:
        async for message in peer.messages():
            await peer.mark_seen(message)
            if message.text == text:
                return

    async with asyncio.timeout(_FAILOVER_TIMEOUT_S):
        await asyncio.gather(alice.send("bob", text), bob.send("alice", text), hears(alice), hears(bob))


def _figures(one: list[Round], two: list[Round], failovers: list[float]) -> dict[str, Figure]:
    alone, both = _median(one), _median(two)
    share = f"nodes alone {both.nodes_cpu_us:.0f} µs against {alone.nodes_cpu_us:.0f} µs"
    return {
        "durable_dm_per_s_cluster": Figure(
            both.per_s,
            "msg/s",
            alone.per_s,
            f"two nodes, half of the messages cross; floor: one node on PostgreSQL in the same run; {LINKS} links",
        ),
        "cluster_cpu_us": Figure(
            round(both.cpu_us, 1), "µs", round(alone.cpu_us, 1), f"of every process but the clients, a message; {share}"
        ),
        "failover_s": Figure(
            round(max(failovers), 2), "s", note=f"worst of {len(failovers)}: kill -9 to mail both ways, real peers"
        ),
    }


def _median(rounds: list[Round]) -> Round:
    return Round(
        *(statistics.median(getattr(one, name) for one in rounds) for name in ("per_s", "cpu_us", "nodes_cpu_us"))
    )
