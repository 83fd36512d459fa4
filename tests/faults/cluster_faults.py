"""Everything that goes wrong in a cluster's world, each to something that is whole, several at a time."""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, NamedTuple

from tests.faults.clocks import Clock
from tests.faults.cluster_world import ClusterWorld, Node, User, keep_running
from tests.faults.victims import wait_ready

Range = tuple[float, float]
DOWN_S: Final[Range] = (0.0, 1.5)
FROZEN_S: Final[Range] = (0.2, 2.5)
CUT_S: Final[Range] = (0.2, 2.5)
LONG_S: Final[Range] = (9.0, 11.0)
"""Beyond the eight seconds after which the other nodes bury one that does not beat."""
LONG: Final = 0.15
"""Share of the nodes' silences that are so long."""
SILENT_S: Final[Range] = (0.3, 1.5)
SPOILT: Final = 10
"""Frames at least, so that the fault is one."""
SPOILT_WITHIN_S: Final = 5.0
"""Whoever has no link meanwhile sends no frames."""
FULL_S: Final[Range] = (0.3, 2.0)
WRONG_S: Final[Range] = (1.2, 3.0)
"""How long a clock is wrong; programs look once a second."""
MOST_WRONG_S: Final = 600


class Fault(NamedTuple):
    """One thing that can go wrong, and what it happens to: one at a time to each."""

    kind: str
    victim: str
    happen: Callable[[], Awaitable[None]]
    """Returns when it is mended."""


class Deck:
    """Deals faults: each kind once in random order, then each once more, and so on."""

    def __init__(self, faults: list[Fault], rng: random.Random) -> None:
        self._faults = faults
        self._rng = rng
        self._kinds: list[str] = []
        self._busy: set[str] = set()
        self.done: Counter[str] = Counter()
        """By kind."""

    async def play(self) -> None:
        """Let the next one happen to a victim that is whole."""
        fault = self._draw()
        self._busy.add(fault.victim)
        self.done[fault.kind] += 1
        try:
            await fault.happen()
        finally:
            self._busy.discard(fault.victim)

    def _draw(self) -> Fault:
        while True:
            for kind in self._kinds:
                free = [one for one in self._faults if one.kind == kind and one.victim not in self._busy]
                if free:
                    self._kinds.remove(kind)
                    return self._rng.choice(free)
            every = sorted({fault.kind for fault in self._faults})
            self._kinds += self._rng.sample(every, len(every))


class Menu:
    """The faults of one world."""

    def __init__(self, world: ClusterWorld, rng: random.Random) -> None:
        self._world = world
        self._rng = rng

    def faults(self) -> list[Fault]:
        """All of them."""
        found = [*self._of_services(), *self._of_the_middle()]
        for number, node in enumerate(self._world.nodes):
            found += self._of_node(f"node {number}", node)
        for name, user in self._world.users.items():
            found += self._of_user(f"daemon of {name}", user)
        return found

    def _of_node(self, victim: str, node: Node) -> list[Fault]:
        every = list(node.cables)
        return [
            Fault("node killed", victim, lambda: self._kill_node(node)),
            Fault("node stopped", victim, lambda: self._stop_node(node)),
            Fault("node frozen", victim, lambda: self._freeze_node(node)),
            Fault("node's clock jumped", victim, lambda: self._jump(node.clock)),
            Fault("node cut from its clients", victim, lambda: self._cut(node, ["clients"])),
            Fault("node cut from its database", victim, lambda: self._cut(node, ["database"])),
            Fault("node cut from its bus", victim, lambda: self._cut(node, ["bus"])),
            Fault("node cut from everything", victim, lambda: self._cut(node, every)),
        ]

    def _of_user(self, victim: str, user: User) -> list[Fault]:
        return [
            Fault("daemon killed", victim, lambda: self._kill_daemon(user)),
            Fault("daemon frozen", victim, lambda: self._freeze_daemon(user)),
            Fault("daemon's clock jumped", victim, lambda: self._jump(user.clock)),
            Fault("daemon's disk full", victim, lambda: self._fill_daemon(user, dies=False)),
            Fault("daemon killed on a full disk", victim, lambda: self._fill_daemon(user, dies=True)),
            Fault("daemon started with a wrong clock", victim, lambda: self._start_wrong(user)),
        ]

    def _of_services(self) -> list[Fault]:
        return [
            Fault("postgres killed", "postgres", self._kill_postgres),
            Fault("postgres frozen", "postgres", self._freeze_postgres),
            Fault("postgres' disk full", "postgres", self._fill_postgres),
            Fault("nats killed", "nats", self._kill_nats),
            Fault("nats frozen", "nats", self._freeze_nats),
        ]

    def _of_the_middle(self) -> list[Fault]:
        return [
            Fault("frames repeated", "frames", self._repeat_frames),
            Fault("frames reordered", "frames", self._reorder_frames),
            Fault("links reset", "links", self._reset_links),
            Fault("links silent", "links", self._silence_links),
        ]

    # Nodes

    async def _kill_node(self, node: Node) -> None:
        await node.process.kill()
        await self._wait(DOWN_S)
        await keep_running(node.process)

    async def _stop_node(self, node: Node) -> None:
        """As a rolling restart does."""
        assert await node.process.terminate() == 0
        await keep_running(node.process)

    async def _freeze_node(self, node: Node) -> None:
        assert node.process.process is not None
        node.process.process.send_signal(signal.SIGSTOP)
        await self._wait(self._long_or(FROZEN_S))
        node.process.process.send_signal(signal.SIGCONT)

    async def _cut(self, node: Node, networks: list[str]) -> None:
        for name in networks:
            await asyncio.to_thread(node.cables[name].pull)
        await self._wait(self._long_or(CUT_S))
        for name in networks:
            await asyncio.to_thread(node.cables[name].plug)

    # Services

    async def _kill_postgres(self) -> None:
        server = self._world.postgres.server
        await asyncio.to_thread(server.kill)
        await self._wait(DOWN_S)
        await asyncio.to_thread(server.start)

    async def _freeze_postgres(self) -> None:
        server = self._world.postgres.server
        await asyncio.to_thread(server.freeze)
        await self._wait(FROZEN_S)
        await asyncio.to_thread(server.thaw)

    async def _fill_postgres(self) -> None:
        """It refuses, or ends because it cannot write its log: then it is started again when there is room."""
        server, disk = self._world.postgres
        await asyncio.to_thread(disk.fill)
        await self._wait(FULL_S)
        disk.free()
        await asyncio.to_thread(server.keep_running)

    async def _kill_nats(self) -> None:
        await self._world.nats.kill()
        await self._wait(DOWN_S)
        await self._world.nats.start()

    async def _freeze_nats(self) -> None:
        self._world.nats.freeze()
        await self._wait(FROZEN_S)
        self._world.nats.thaw()

    # The middle

    async def _repeat_frames(self) -> None:
        self._world.middle.repeats = True
        await self._spoil("repeated")
        self._world.middle.repeats = False

    async def _reorder_frames(self) -> None:
        self._world.middle.reorders = True
        await self._spoil("reordered")
        self._world.middle.reorders = False

    async def _spoil(self, how: str) -> None:
        spoilt = self._world.middle.spoilt
        enough = spoilt[how] + SPOILT
        with suppress(TimeoutError):
            async with asyncio.timeout(SPOILT_WITHIN_S):
                while spoilt[how] < enough:  # noqa: ASYNC110 - nothing announces it
                    await asyncio.sleep(0.05)

    async def _reset_links(self) -> None:
        self._world.front.cut()
        await self._wait((0.0, 0.5))

    async def _silence_links(self) -> None:
        self._world.front.hush()
        await self._wait(SILENT_S)
        self._world.front.carry()

    # Users

    async def _kill_daemon(self, user: User) -> None:
        await asyncio.to_thread(user.daemon.kill)
        await self._wait(DOWN_S)
        await self._start_daemon(user)

    async def _freeze_daemon(self, user: User) -> None:
        os.kill(user.daemon.pid, signal.SIGSTOP)
        await self._wait(FROZEN_S)
        os.kill(user.daemon.pid, signal.SIGCONT)

    async def _fill_daemon(self, user: User, *, dies: bool) -> None:
        await asyncio.to_thread(user.disk.fill)
        await self._wait(FULL_S)
        if dies:
            await asyncio.to_thread(user.daemon.kill)
        user.disk.free()
        if dies:
            await self._start_daemon(user)

    async def _start_wrong(self, user: User) -> None:
        """As on a computer without a battery for its clock."""
        await asyncio.to_thread(user.daemon.kill)
        user.clock.jump(self._jump_s())
        await self._start_daemon(user)
        await self._wait(WRONG_S)
        user.clock.jump(0)

    async def _start_daemon(self, user: User) -> None:
        user.daemon.spawn()
        await asyncio.to_thread(wait_ready, user.daemon)

    # Of all

    async def _jump(self, clock: Clock) -> None:
        clock.jump(self._jump_s())
        await self._wait(WRONG_S)
        clock.jump(0)

    def _jump_s(self) -> int:
        return self._rng.randint(1, MOST_WRONG_S) * self._rng.choice((1, -1))

    async def _wait(self, seconds: Range) -> None:
        await asyncio.sleep(self._rng.uniform(*seconds))

    def _long_or(self, usual: Range) -> Range:
        return LONG_S if self._rng.random() < LONG else usual
