"""A cluster of real processes with users on it, and everything that can be done to it."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from json import JSONDecodeError
from pathlib import Path
from typing import Final

from tests.balancer import Balancer, balancer
from tests.brokers import BrokerProcess
from tests.faults.life import USERS, enrol
from tests.faults.victims import DaemonVictim, start, wait_ready
from tests.nats_server import NatsServer, nats_server
from tests.postgres import PostgresServer
from tests.processes import machine

NODES: Final = 2
STARTS: Final = 100
MOST_DOWN_S: Final = 2.0
MOST_FROZEN_S: Final = 4.5
"""Beyond the three seconds after which the other nodes bury one that does not beat."""


class ClusterWorld:
    """Nodes behind one name, their PostgreSQL and NATS, and three users' daemons."""

    def __init__(
        self, directory: Path, postgres: PostgresServer, nats: NatsServer, front: Balancer, rng: random.Random
    ) -> None:
        self.postgres = postgres
        self.database = postgres.database()
        self.nats = nats
        self.front = front
        self.nodes: list[BrokerProcess] = []
        self.daemons: dict[str, DaemonVictim] = {}
        self.members: dict[str, str] = {}
        self.done: Counter[str] = Counter()
        """Faults by kind."""
        self._directory = directory
        self._rng = rng
        self._busy: set[str] = set()
        self._menu: dict[str, Callable[[], Awaitable[None]]] = {
            "node killed": self._kill_node,
            "node frozen": self._freeze_node,
            "node stopped": self._stop_node,
            "postgres killed": self._kill_postgres,
            "postgres frozen": self._freeze_postgres,
            "nats killed": self._kill_nats,
            "nats frozen": self._freeze_nats,
            "links cut": self._cut_links,
            "network silent": self._silence,
            "daemon killed": self._kill_daemon,
        }

    async def begin(self, stack: ExitStack) -> None:
        """Start the nodes, then the daemons, and let everybody join one mesh."""
        for number in range(NODES):
            self.nodes.append(await self._new_node(number).start())
            self.front.ports.append(self.nodes[-1].port)
        machines = {user: stack.enter_context(machine(self._directory, user)) for user in USERS}
        self.daemons = {user: DaemonVictim(one, user) for user, one in machines.items()}
        for daemon in self.daemons.values():
            daemon.machine.config_dir.mkdir(mode=0o700)
            await asyncio.to_thread(start, daemon)
            stack.callback(daemon.kill)
        await asyncio.to_thread(enrol, machines, self.front.url)
        for user, one in machines.items():
            self.members[user] = (await asyncio.to_thread(one.ok, "whoami"))["identities"][0]["peer"]

    async def fault(self) -> None:
        """Do one thing that goes wrong, to something that is whole; returns when it is mended."""
        kinds = [kind for kind in self._menu if kind.split(" ", 1)[0] not in self._busy]
        kind = self._rng.choice(kinds)
        victim = kind.split(" ", 1)[0]
        self._busy.add(victim)
        self.done[kind] += 1
        try:
            await self._menu[kind]()
        finally:
            self._busy.discard(victim)

    async def close(self) -> None:
        """End the nodes, frozen ones too."""
        for node in self.nodes:
            if node.process is not None and node.process.returncode is None:
                node.process.send_signal(signal.SIGCONT)
                await node.kill()

    # What can go wrong

    async def _kill_node(self) -> None:
        node = self._rng.choice(self.nodes)
        await node.kill()
        await asyncio.sleep(self._rng.uniform(0, MOST_DOWN_S))
        await _keep_running(node)

    async def _stop_node(self) -> None:
        """As a rolling restart does."""
        node = self._rng.choice(self.nodes)
        assert await node.terminate() == 0
        await _keep_running(node)

    async def _freeze_node(self) -> None:
        node = self._rng.choice(self.nodes)
        assert node.process is not None
        node.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(self._rng.uniform(0.2, MOST_FROZEN_S))
        node.process.send_signal(signal.SIGCONT)

    async def _kill_postgres(self) -> None:
        await asyncio.to_thread(self.postgres.kill)
        await asyncio.sleep(self._rng.uniform(0, MOST_DOWN_S))
        await asyncio.to_thread(self.postgres.start)

    async def _freeze_postgres(self) -> None:
        await asyncio.to_thread(self.postgres.freeze)
        await asyncio.sleep(self._rng.uniform(0.2, MOST_FROZEN_S))
        await asyncio.to_thread(self.postgres.thaw)

    async def _kill_nats(self) -> None:
        await self.nats.kill()
        await asyncio.sleep(self._rng.uniform(0, MOST_DOWN_S))
        await self.nats.start()

    async def _freeze_nats(self) -> None:
        self.nats.freeze()
        await asyncio.sleep(self._rng.uniform(0.2, MOST_FROZEN_S))
        self.nats.thaw()

    async def _cut_links(self) -> None:
        self.front.cut()
        await asyncio.sleep(self._rng.uniform(0, 0.5))

    async def _silence(self) -> None:
        self.front.hush()
        await asyncio.sleep(self._rng.uniform(0.2, MOST_DOWN_S))
        self.front.carry()

    async def _kill_daemon(self) -> None:
        daemon = self._rng.choice(list(self.daemons.values()))
        await asyncio.to_thread(daemon.kill)
        await asyncio.sleep(self._rng.uniform(0, MOST_DOWN_S))
        daemon.spawn()
        await asyncio.to_thread(wait_ready, daemon)

    def _new_node(self, number: int) -> BrokerProcess:
        directory = self._directory / f"node-{number}"
        directory.mkdir()
        key = self._directory / "broker.key"
        return BrokerProcess(
            directory,
            *("--database", self.postgres.tcp_url(self.database), "--bus", self.nats.url, "--key", str(key)),
            *("--origin", self.front.url, "--limit", "failed_handshakes_per_minute=10000", "--log-level", "warning"),
        )


async def _keep_running(node: BrokerProcess) -> None:
    """As a service manager does: a node that finds no database ends, and is started again."""
    for _ in range(STARTS):
        with suppress(JSONDecodeError):  # it has ended without a word on its standard output
            await node.start()
            return
        await asyncio.sleep(0.3)
    raise AssertionError("the node does not start")


@asynccontextmanager
async def cluster_world(directory: Path, postgres: PostgresServer, rng: random.Random) -> AsyncIterator[ClusterWorld]:
    """A cluster in which everybody knows everybody."""
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(nats_server())
        front = await stack.enter_async_context(balancer())
        daemons = stack.enter_context(ExitStack())
        world = ClusterWorld(directory, postgres, nats, front, rng)
        stack.push_async_callback(world.close)
        await world.begin(daemons)
        yield world
