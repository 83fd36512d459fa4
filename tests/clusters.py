"""Nodes of one broker for tests: inside the test's process on one SQLite store, or on real PostgreSQL and NATS."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from claudemesh.broker.app import Broker, Shared
from claudemesh.broker.bus.local import Hub, LocalBus
from claudemesh.broker.bus.nats import NatsBus
from claudemesh.broker.heart import Heart
from claudemesh.broker.key import load_key
from claudemesh.broker.logs import open_log
from claudemesh.broker.store.base import Store
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.broker.store.url import DatabaseUrl
from claudemesh.types import BrokerId
from tests.brokers import settings
from tests.nats_server import NatsServer

HEARD_WITHIN_S: Final = 3.0
"""Well below the interval at which a node polls while its bus is connected: what comes within this came by a hint."""


class Cluster:
    """What nodes share, and the nodes."""

    def __init__(
        self, directory: Path, hub: Hub | None, store: Store | None, database: str, nats: NatsServer | None
    ) -> None:
        self._directory = directory
        self._hub = hub
        self._store = store
        self._database = database
        self._nats = nats
        self._started = 0
        self.nodes: list[Broker] = []

    async def start(self, **changes: Any) -> Broker:
        """One more node."""
        self._started += 1
        directory = self._directory / f"node-{self._started}"
        directory.mkdir()
        changes = {"key": self._directory / "broker.key", **changes}
        if self._store is not None and self._hub is not None:
            given = settings(directory, **changes)
            node = Broker(given, shared=Shared(self._store, LocalBus(self._hub)))
        else:
            assert self._nats is not None
            database = DatabaseUrl(self._database)
            node = Broker(settings(directory, database=database, bus=self._nats.url, **changes))
        await node.__aenter__()
        self.nodes.append(node)
        if isinstance(node._bus, NatsBus):
            await until(node._bus.is_connected)
            await asyncio.sleep(0.1)
        return node

    async def start_alone(self, directory: Path) -> None:
        """Start a broker without a bus on the same store."""
        given = settings(directory, key=self._directory / "broker.key")
        if self._store is not None:
            await Heart(self._store, BrokerId(load_key(given.key).public), open_log("error", None), alone=True).join()
            return
        async with Broker(replace(given, database=DatabaseUrl(self._database))):
            pass

    async def cut(self) -> None:
        """Lose the bus."""
        if self._hub is not None:
            self._hub.is_cut = True
        if self._nats is not None:
            await self._nats.kill()

    async def mend(self) -> None:
        """Have the bus back."""
        if self._hub is not None:
            self._hub.is_cut = False
        if self._nats is not None:
            await self._nats.start()

    async def close(self) -> None:
        """Stop every node."""
        while self.nodes:
            await self.stop(self.nodes[-1])

    async def stop(self, node: Broker) -> None:
        """Stop one node."""
        self.nodes.remove(node)
        await node.__aexit__(None, None, None)


@asynccontextmanager
async def local_cluster(directory: Path, kind: type[SqliteStore] = SqliteStore) -> AsyncIterator[Cluster]:
    """Nodes of this process on one SQLite store."""
    store = kind(directory / "shared.db")
    await store.open()
    cluster = Cluster(directory, Hub(), store, "", None)
    try:
        yield cluster
    finally:
        await cluster.close()
        await store.close()


@asynccontextmanager
async def real_cluster(directory: Path, database: str, nats: NatsServer) -> AsyncIterator[Cluster]:
    """Nodes of this process on a PostgreSQL database and a NATS server."""
    cluster = Cluster(directory, None, None, database, nats)
    try:
        yield cluster
    finally:
        await cluster.close()


async def until(holds: Callable[[], object], within_s: float = 10.0) -> None:
    """Wait until something holds; that it never does is a failure."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def took_s(work: Awaitable[object]) -> float:
    """How long something took."""
    started = time.monotonic()
    await work
    return time.monotonic() - started
