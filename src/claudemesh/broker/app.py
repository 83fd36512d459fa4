"""Composition root: `run` for a process of its own, `Broker` inside another one (docs/spec/broker.md §1)."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from claudemesh.broker.acceptance import Acceptances
from claudemesh.broker.announcing import Announcer, Change
from claudemesh.broker.bus.base import Bus, Gone
from claudemesh.broker.cluster import Cluster
from claudemesh.broker.commits import Commits
from claudemesh.broker.config import DEFAULT_PORT, Origins, Settings, parse_database
from claudemesh.broker.core import Core
from claudemesh.broker.directory import Directory
from claudemesh.broker.exchange import Exchange
from claudemesh.broker.following import Following
from claudemesh.broker.heart import Heart, unix_millis
from claudemesh.broker.hints import Hints
from claudemesh.broker.http import Http
from claudemesh.broker.key import load_key
from claudemesh.broker.leasing import Leasing
from claudemesh.broker.logs import Log, fingerprint, open_log
from claudemesh.broker.members import Members
from claudemesh.broker.metrics import Metrics
from claudemesh.broker.notices import undelivered_notice
from claudemesh.broker.opening import open_bus, open_store, open_tracer
from claudemesh.broker.ordering import Ordering
from claudemesh.broker.policy import AddressPolicy, Limits
from claudemesh.broker.presence import Presence
from claudemesh.broker.server import Server
from claudemesh.broker.sharing import Sharing
from claudemesh.broker.shedding import Shedding
from claudemesh.broker.store.base import Store
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.broker.tasks import Tasks
from claudemesh.broker.tracing.parts import Parts
from claudemesh.broker.upkeep import Upkeep
from claudemesh.crypto.primitives import SigningKey
from claudemesh.errors import LocalError
from claudemesh.listen import Listen
from claudemesh.protocol.limits import MAX_FRAME_BYTES
from claudemesh.transport import run as run_loop
from claudemesh.transport.listener import Listener, ListenerLimits
from claudemesh.types import BrokerId

__all__ = ["DEFAULT_PORT", "Broker", "Limits", "Listen", "Settings", "parse_database", "run"]


@dataclass(frozen=True, slots=True)
class Shared:
    """What several nodes inside one process use together; it is open, and stays so. Without a bus there is one."""

    store: Store
    bus: Bus | None


class Broker:
    """One broker, or one node of it: `async with Broker(settings) as broker:` serves until the context ends."""

    def __init__(self, settings: Settings, log: Log | None = None, shared: Shared | None = None) -> None:
        """Nothing is opened before the context is entered.

        Args:
            log: Where events go; None opens what the settings name.
            shared: A store and a bus for this node in place of those that the settings name.

        Raises:
            UsageError: The settings contradict each other.
        """
        settings.check()
        self.settings = settings
        self.port: int | None = None
        """The TCP port that is bound."""
        self._log = log
        self._shared = shared

    @property
    def id(self) -> BrokerId:
        """The broker's public key: what a genesis names as `bk`."""
        return self._core.id

    @property
    def url(self) -> str:
        """The URL to dial: the first origin."""
        return self._origins.of_request(None, self.settings.listen is None)

    async def __aenter__(self) -> Self:
        """Open the store and listen.

        Raises:
            LocalError: The database or the key cannot be used; nothing was changed.
            UsageError: The address cannot be listened on.
        """
        if self._log is None:
            self._log = open_log(self.settings.log_level, self.settings.log_file)
        self._tasks = Tasks(self._log)
        key = load_key(self.settings.key_path())
        metrics = Metrics()
        self._tracer = open_tracer(self.settings, metrics)
        self._parts = Parts(self._tracer)
        self._bus = open_bus(self.settings, BrokerId(key.public)) if self._shared is None else self._shared.bus
        self._store: Store = (
            await open_store(self.settings, self._tracer) if self._shared is None else self._shared.store
        )
        self._hints = Hints(self._bus)
        self._heart = self._parts.of(Heart)(self._store, BrokerId(key.public), self._log, alone=self._bus is None)
        try:
            await self._heart.join()
            self._build(key, self._log, metrics)
            await self._upkeep.count_rosters()
            if self._bus is None:
                await self._upkeep.restore_presence()
            await self._listen()
            if self._bus is not None and self._cluster is not None:
                await self._bus.open(self._cluster.receive)
        except BaseException:
            await self._tasks.stop()
            await self._close_store()
            await self._close_tracer()
            raise
        self._core.log.info("started", broker=fingerprint(self.id), port=self.port, unix=self.settings.unix is not None)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop: finish the commit, tell every link, close; within the drain timeout."""
        core, server = self._core, self._server
        server.draining = self._http.draining = True
        timeout_s = core.limits.drain_timeout_ms / 1_000
        self._listener.stop_accepting()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s / 2):
                await core.exchange.drained()
        await self._members.audit_refusals()
        server.drain()
        await self._listener.close(timeout_s / 4)
        await self._tasks.stop()
        await self._close_store()
        await self._close_tracer()
        core.log.info("stopped")

    async def _close_store(self) -> None:
        """End as a node, tell the others, and close what this broker has opened."""
        if self._bus is not None:  # alone, who was connected may come back without joining anew
            with contextlib.suppress(LocalError):
                await self._heart.leave()
            self._hints.flush()
            self._bus.publish(Gone())
            await self._bus.close()
        if self._shared is None:
            await self._store.close()

    async def _close_tracer(self) -> None:
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)

    async def wait_failed(self) -> None:
        """Return never, or raise what ended one of the broker's own tasks."""
        await self._tasks.wait_failed()

    def _build(self, key: SigningKey, log: Log, metrics: Metrics) -> None:
        shedding = Shedding(self.settings.limits.answer_within_ms)
        core = self._core = self._build_core(key, log, metrics, shedding)
        self._members = self._parts.of(Members)(core)
        self._http = Http(core, self._bus)
        self._server = Server(core, self._members, self._http, lambda: self._origins)
        self._listener = Listener(self._server, _listener_limits(core.limits, self.settings))
        self._upkeep = Upkeep(core, self._listener, self._server, self._http, self._members)
        for work in (
            core.exchange.commit_forever,
            shedding.watch_forever,
            core.leasing.retry_forever,
            core.leasing.wait_for_due,
            core.leasing.expire_forever,
            self._upkeep.sweep_forever,
            self._upkeep.clean_forever,
        ):
            core.spawn(work())
        self._cluster = self._join_others()
        if self._cluster is not None or not isinstance(self._store, SqliteStore):
            core.spawn(self._heart.beat_forever(self._on_death, self._on_burial))

    def _build_core(self, key: SigningKey, log: Log, metrics: Metrics, shedding: Shedding) -> Core:
        limits, broker, alone, of = self.settings.limits, BrokerId(key.public), self._bus is None, self._parts.of
        clock, spawn = unix_millis if alone else self._heart.clock, self._tasks.spawn
        directory, hints, creation = Directory(self._store), self._hints, self.settings.mesh_creation

        def notice(event: str) -> Any:
            return undelivered_notice(key, clock, event)

        announcer = Announcer(key, clock, limits, self._changed, alone=alone)
        following = None if alone else Following(self._store, directory, announcer, key, clock, limits)
        leasing = of(Leasing)(self._store, directory, limits, metrics, clock, spawn, notice, hints)
        acceptances = Acceptances(key, clock)
        sharing = Sharing(self._store, limits, metrics, spawn)
        commits = of(Commits)(
            self._store, leasing, acceptances, limits, metrics, clock, shedding, following, notice, sharing
        )
        exchange = Exchange(commits, leasing, acceptances, limits, metrics, clock, broker, shedding)
        ordering = of(Ordering)(
            self._store, directory, key, creation, limits, metrics, clock, announcer, following, hints
        )
        return Core(
            key=key,
            limits=limits,
            store=self._store,
            directory=directory,
            ordering=ordering,
            exchange=exchange,
            leasing=leasing,
            presence=Presence(limits.rejoin_grace_ms),
            addresses=AddressPolicy(limits),
            metrics=metrics,
            log=log,
            clock=clock,
            spawn=spawn,
            heart=self._heart,
            hints=hints,
            following=following,
        )

    def _join_others(self) -> Cluster | None:
        """What is there only where there are other nodes."""
        core, following = self._core, self._core.following
        if following is None or self._bus is None:
            return None
        core.directory.revalidate = following.refresh
        cluster = Cluster(
            core.store,
            self._bus,
            core.directory,
            following,
            core.leasing,
            core.id,
            core.limits,
            core.metrics,
            core.clock,
            core.spawn,
            core.log,
        )
        core.spawn(cluster.poll_forever())
        return cluster

    async def _on_death(self) -> None:
        """The others have buried this node: its links have to come again, to whichever node they find."""
        self._server.drain()

    def _on_burial(self, buried: int) -> None:
        self._core.metrics.nodes_buried += buried
        if self._cluster is not None:
            self._cluster.look_soon()

    async def _listen(self) -> None:
        self._origins = Origins(self.settings, None)
        if self.settings.listen is not None:
            self.port = await self._listener.listen(self.settings.listen.host, self.settings.listen.port)
            self._origins = Origins(self.settings, self.port)
        if self.settings.unix is not None:
            await self._listener.listen_unix(self.settings.unix)

    def _changed(self, change: Change) -> None:
        self._members.changed(change)


def _listener_limits(limits: Limits, settings: Settings) -> ListenerLimits:
    return ListenerLimits(
        half_open=limits.half_open_links,
        half_open_per_address=limits.half_open_links_per_address,
        unauthenticated_bytes=limits.unauthenticated_bytes,
        handshake_timeout_s=limits.handshake_timeout_ms / 1_000,
        frame_bytes=MAX_FRAME_BYTES,
        buffered_bytes=limits.buffered_bytes_max,
        held_bytes=limits.held_bytes,
        links=limits.links,
        trust_forwarded_for=settings.trust_forwarded_for,
    )


def run(settings: Settings, started: Callable[[Broker], None] = lambda _: None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        started: Called when the broker listens.

    Raises:
        ClaudemeshError: It could not start, or its disk is damaged.
    """
    run_loop(_serve(settings, started))


async def _serve(settings: Settings, started: Callable[[Broker], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    if sys.platform == "win32":
        signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(stop.set))
    else:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
    _raise_file_limit()
    async with Broker(settings) as broker:
        started(broker)
        waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(broker.wait_failed())]
        done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in pending:
            wait.cancel()
        failures = [error for error in (wait.exception() for wait in done) if error is not None]
        if failures:
            raise LocalError("internal", type(failures[0]).__name__) from failures[0]


def _raise_file_limit() -> None:
    """A link is a file descriptor: take as many as the system gives."""
    try:
        import resource  # not on Windows
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
