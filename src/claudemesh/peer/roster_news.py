"""What the broker announces of the roster on one link: applied in its order, asked for where something is missing."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from claudemesh.crypto.statements import Statement
from claudemesh.errors import RosterConflict
from claudemesh.peer.line import Line
from claudemesh.peer.membership import Membership
from claudemesh.protocol.messages import Log

MAX_NEWS: Final = 1_024
"""Announcements that wait to be applied; what is beyond that is fetched by a sync instead."""
FIRST_LOG_TIMEOUT_S: Final = 10.0


class RosterNews:
    """Announcements that arrived and are not applied yet: entries, and heads that were signed anew."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._waiting: deque[Log | Statement] = deque()
        self._arrived = asyncio.Event()

    def begin_link(self) -> None:
        """A new link: what came on the former one comes again."""
        self._waiting.clear()

    def add(self, news: Log | Statement) -> None:
        """The broker announced something."""
        if len(self._waiting) < MAX_NEWS:
            self._waiting.append(news)
        self._arrived.set()

    async def sync(self, line: Line) -> None:
        """The broker sends the roster's suffix after the hello; whatever it leaves open is asked for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOG_TIMEOUT_S):
                while not self._waiting:
                    self._arrived.clear()
                    await self._arrived.wait()
        if not await self._take():
            with suppress(RosterConflict):
                await self._membership.catch_up(line)

    async def follow(self, line: Line, applied: Callable[[], None]) -> None:
        """Apply what the broker announces, for as long as the link is open.

        Args:
            applied: Called after each time.
        """
        while True:
            self._arrived.clear()
            if not self._waiting:
                await self._arrived.wait()
            overflowed = len(self._waiting) >= MAX_NEWS
            with suppress(RosterConflict):  # the event says it; the link stays, to receive
                if not await self._take() or overflowed:
                    await self._membership.catch_up(line)
            applied()

    async def _take(self) -> bool:
        """Apply what has arrived; returns whether the replica now ends where the broker says."""
        current = False
        while self._waiting:
            news = self._waiting.popleft()
            with suppress(RosterConflict):
                take = self._membership.take_log(news) if isinstance(news, Log) else self._membership.take_head(news)
                current = await take
        return current
