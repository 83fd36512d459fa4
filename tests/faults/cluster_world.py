"""A cluster of real processes with users on it: each node a computer of its own, each user a clock and a disk.

Nodes are in network namespaces, with a cable each to their clients, their database and their bus. Users reach them by
one name, through a middle that can misbehave and a balancer.
"""

import asyncio
import random
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from json import JSONDecodeError
from pathlib import Path
from typing import Final, NamedTuple

from tests.balancer import Balancer, balancer
from tests.brokers import BrokerProcess
from tests.faults.clocks import Clock
from tests.faults.life import USERS, enrol
from tests.faults.middle import Middle, middle
from tests.faults.networks import Cable, inside, namespace, network, require_namespaces
from tests.faults.small_disk import SmallDisk, small_disk
from tests.faults.victims import DaemonVictim, start
from tests.nats_server import NatsServer, nats_server
from tests.postgres import PostgresServer, postgres_server_in
from tests.processes import Machine

NODES: Final = 2
FIRST_PORT: Final = 7_901
NETWORKS: Final = ("clients", "database", "bus")
USER_DISK_MIB: Final = 384
POSTGRES_DISK_MIB: Final = 512
POSTGRES_OPTIONS: Final = {"max_wal_size": "96MB", "min_wal_size": "32MB"}
STARTS: Final = 100
LOG_CHARACTERS: Final = 3_000
QUEUED: Final = "SELECT peer_id, lease, count(*) FROM queued GROUP BY peer_id, lease"
IGNORED_LIMITS: Final = ("failed_handshakes_per_minute=100000",)
"""All users come from one address, and a broken middle breaks handshakes all the time."""


class Node(NamedTuple):
    """One node, what connects it, and its machine's clock."""

    process: BrokerProcess
    cables: dict[str, Cable]
    """By network."""
    clock: Clock


class User(NamedTuple):
    """One user's daemon, and the clock and disk of its machine."""

    daemon: DaemonVictim
    clock: Clock
    disk: SmallDisk


class Postgres(NamedTuple):
    """The database's server and its disk."""

    server: PostgresServer
    disk: SmallDisk


class ClusterWorld(NamedTuple):
    """Everything that can go wrong."""

    nodes: list[Node]
    users: dict[str, User]
    members: dict[str, str]
    """Peer keys by user."""
    postgres: Postgres
    database: str
    nats: NatsServer
    front: Balancer
    middle: Middle

    @property
    def daemons(self) -> dict[str, DaemonVictim]:
        return {name: user.daemon for name, user in self.users.items()}

    @property
    def clocks(self) -> dict[str, Clock]:
        return {name: user.clock for name, user in self.users.items()}

    def diagnosis(self) -> str:
        """What everybody says about its state, for whoever looks why it does not heal."""
        files = [node.process.log for node in self.nodes]
        files += [daemon.machine.config_dir / "daemon.log" for daemon in self.daemons.values()]
        logs = [f"{file}:\n{file.read_text()[-LOG_CHARACTERS:]}" for file in files if file.exists()]
        doctors = [daemon.machine.run("doctor").stdout for daemon in self.daemons.values()]
        queries = ("TABLE nodes", "TABLE presence", QUEUED)
        tables = [f"{query}:\n{self.postgres.server.sql(query, self.database)}" for query in queries]
        return "\n".join((*logs, *doctors, *tables))

    def buried(self) -> int:
        """How often a node that lived was buried by the others, and joined anew."""
        logs = (node.process.log.read_text() for node in self.nodes)
        return sum(log.count("node_buried") for log in logs)


@asynccontextmanager
async def cluster_world(directory: Path, rng: random.Random) -> AsyncIterator[ClusterWorld]:
    """A cluster in which everybody knows everybody."""
    require_namespaces()
    async with AsyncExitStack() as stack:
        networks = {name: stack.enter_context(network()) for name in NETWORKS}
        postgres = stack.enter_context(_postgres(networks["database"].address))
        nats = await stack.enter_async_context(nats_server(networks["bus"].address))
        front = await stack.enter_async_context(balancer())
        broken = await stack.enter_async_context(middle(front.url, rng))
        database = postgres.server.database()
        shared = (
            *("--database", postgres.server.tcp_url(database, networks["database"].address), "--bus", nats.url),
            *("--key", str(directory / "broker.key"), "--origin", broken.url, "--log-level", "warning"),
            *(part for limit in IGNORED_LIMITS for part in ("--limit", limit)),
        )
        nodes: list[Node] = []
        for number in range(NODES):
            name = stack.enter_context(namespace(number))
            cables = {kind: one.connect(name, kind) for kind, one in networks.items()}
            node = _node(directory / f"node-{number}", FIRST_PORT + number, name, cables, shared)
            nodes.append(node)
            stack.push_async_callback(_end, node.process)
            await node.process.start()
            front.ports.append(node.process.port)
            front.addresses[node.process.port] = node.process.address
        users = {name: stack.enter_context(_user(directory / name, name)) for name in USERS}
        machines = {name: user.daemon.machine for name, user in users.items()}
        await asyncio.to_thread(enrol, machines, broken.url)
        members = {name: one.ok("whoami")["identities"][0]["peer"] for name, one in machines.items()}
        yield ClusterWorld(nodes, users, members, postgres, database, nats, front, broken)


async def keep_running(node: BrokerProcess) -> None:
    """As a service manager does: a node that finds no database ends, and is started again."""
    for _ in range(STARTS):
        with suppress(JSONDecodeError):  # it has ended without a word on its standard output
            await node.start()
            return
        await asyncio.sleep(0.3)
    raise AssertionError("the node does not start")


@contextmanager
def _postgres(address: str) -> Iterator[Postgres]:
    directory = Path(tempfile.mkdtemp(prefix="claudemesh-pg-"))
    directory.chmod(0o755)
    try:
        with small_disk(directory, POSTGRES_DISK_MIB) as disk:
            options = POSTGRES_OPTIONS | {"listen_addresses": f"127.0.0.1,{address}"}
            with postgres_server_in(disk.path, **options) as server:
                server.trust(f"{address}/24")
                server.start()
                yield Postgres(server, disk)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _user(home: Path, name: str) -> Iterator[User]:
    home.mkdir(mode=0o700)
    with ExitStack() as stack:
        disk, clock = stack.enter_context(small_disk(home, USER_DISK_MIB)), Clock(home / "clock")
        one = Machine(home, disk.path / "config", clock.environment)
        one.config_dir.mkdir(mode=0o700)
        daemon = DaemonVictim(one, name)
        start(daemon)
        stack.callback(daemon.kill)
        yield User(daemon, clock, disk)


def _node(directory: Path, port: int, name: str, cables: dict[str, Cable], options: tuple[str, ...]) -> Node:
    directory.mkdir()
    clock = Clock(directory / "clock")
    process = BrokerProcess(
        directory,
        *options,
        port=port,
        address=cables["clients"].address,
        within=inside(name),
        environment=clock.environment,
    )
    return Node(process, cables, clock)


async def _end(node: BrokerProcess) -> None:
    if node.process is not None and node.process.returncode is None:
        node.process.send_signal(signal.SIGCONT)
        await node.kill()
