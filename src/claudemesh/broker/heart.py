"""A broker's place among the nodes of its store: number, heartbeat, common clock (docs/spec/cluster.md §2)."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from claudemesh.broker.logs import Log
from claudemesh.broker.store.base import LinkId, Node, Store
from claudemesh.errors import LocalError
from claudemesh.types import BrokerId, UnixMillis

BEAT_S: Final = 1.0
LAPSE_MS: Final = 8_000
"""A node that did not beat for so long is buried. A beat waits for the commit under way, which overload makes slow, and
burying a node that lives sends all its links away; who reconnects elsewhere does not wait for it."""
_WITNESS_S: Final = 2.0
"""Only a node whose own last beat succeeded this lately buries others: when the store paused, all are late."""
_DRIFT_MS_PER_S: Final = 1.0
_CLOCK_OFF_MS: Final = 30_000


def unix_millis() -> UnixMillis:
    """This machine's clock."""
    return UnixMillis(time.time_ns() // 1_000_000)


class Heart:
    """Joins, beats, and leaves. All nodes go by the clock of the store; a broker that is alone has its machine's."""

    def __init__(self, store: Store, broker: BrokerId, log: Log, *, alone: bool) -> None:
        self._store = store
        self._broker = broker
        self._log = log
        self._alone = alone
        self._node: Node | None = None
        self._links: Iterator[int] = iter(())
        self._began_at = unix_millis() - _passed_ms()
        """The store's clock less the time that has passed: setting this machine's clock moves nothing."""
        self._error_ms = float("inf")
        """By which that may be wrong, when it was set."""
        self._beat_at = self._set_at = 0.0

    def clock(self) -> UnixMillis:
        """The time, by the store's clock."""
        return UnixMillis(self._began_at + _passed_ms())

    def next_link(self) -> LinkId:
        """The number of a link that opens now."""
        return LinkId(next(self._links))

    async def join(self) -> None:
        """Become a node, for the first time or anew.

        Raises:
            LocalError: `node_key`, `config_locked`, or the store fails.
        """
        node = await self._store.join(self._broker, alone=self._alone)
        self._node, self._links = node, itertools.count(node.first_link)
        if not self._alone:
            await self._beat(node, None)

    async def leave(self) -> None:
        """End as a node: what its links held goes to other nodes at once."""
        if self._node is not None:
            await self._store.leave(self._node.id)

    async def beat_forever(self, on_death: Callable[[], Awaitable[None]], on_burial: Callable[[int], None]) -> None:
        """Beat, bury those that do not, and join anew when this node was buried.

        Args:
            on_death: Ends what this node had before it joined anew.
            on_burial: So many other nodes were buried by this one.
        """
        while True:
            await asyncio.sleep(BEAT_S)
            node = self._node
            if node is None:
                continue
            is_witness = time.monotonic() - self._beat_at < _WITNESS_S
            try:
                is_alive, buried = await self._beat(node, LAPSE_MS if is_witness else None)
                if not is_alive:
                    self._log.warning("node_buried")
                    await self.join()  # first: a link that comes again at once is one of the new node's
                    await on_death()
            except LocalError:
                continue  # the store is away for everybody, or for us: then another node buries this one
            if buried:
                self._log.warning("nodes_ended", count=buried)
                on_burial(buried)

    async def _beat(self, node: Node, lapse_ms: int | None) -> tuple[bool, int]:
        sent_at = time.monotonic()
        beat = await self._store.beat(node.id, lapse_ms)
        self._beat_at = time.monotonic()
        self._set_clock(beat.at, sent_at, self._beat_at)
        ahead_ms = self.clock() - unix_millis()
        if abs(ahead_ms) > _CLOCK_OFF_MS:
            self._log.warning("clock_off", milliseconds=ahead_ms)
        return beat.is_alive, beat.buried

    def _set_clock(self, at: UnixMillis, asked_at: float, answered_at: float) -> None:
        """Take what the store's clock said, unless what is known is nearer to it: a slow answer tells little.

        Args:
            at: The store's clock at some moment between the two.
            asked_at, answered_at: Seconds of the monotonic clock; the second is now.
        """
        error_ms = (answered_at - asked_at) * 500
        began_at = int(at - _passed_ms() + error_ms)
        known_to_ms = self._error_ms + (answered_at - self._set_at) * _DRIFT_MS_PER_S
        if error_ms <= known_to_ms or abs(began_at - self._began_at) > error_ms + known_to_ms:
            self._began_at, self._error_ms, self._set_at = began_at, error_ms, answered_at


def _passed_ms() -> int:
    return time.monotonic_ns() // 1_000_000
