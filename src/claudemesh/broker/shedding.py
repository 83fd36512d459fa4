"""Refuse early under overload, so that what is admitted is answered soon (docs/spec/broker.md §4).

A broker that takes more than it can store does not fail, it gets late: frames wait in socket buffers and envelopes
for their commit. How late it is shows in two places, and both are measured: how long a timer of the event loop is
overdue, and how long a commit takes. The share of envelopes that is admitted falls fast while that sum is above the
target, and rises slowly when it is well below.
"""

import asyncio
from typing import Final

TICK_S: Final = 0.02
MEMORY: Final = 0.8
"""Weight of what was measured before: one late tick is not a late broker."""
COMMITS: Final = 1.5
"""What arrives now waits for half a commit, which is under way, and for its own."""
FALL: Final = 0.8
FALL_FAST: Final = 0.4
RISE: Final = 0.01
LEAST_SHARE: Final = 0.02
FREE_ROWS: Final = 128
"""A queue this short is stored within milliseconds: a disk that stalls once makes nobody come again."""
RETRY_MS: Final = 500
RETRY_MAX_MS: Final = 5_000


class Shedding:
    """What share of the envelopes is admitted now."""

    __slots__ = ("_behind_s", "_busy", "_commit_s", "_credit", "_latest_s", "share")

    def __init__(self, answer_within_ms: int) -> None:
        """Aim at answering within so many milliseconds."""
        self.share = 1.0
        self._latest_s = answer_within_ms / 1_000
        self._busy = asyncio.Event()
        self._credit = 0.0
        self._commit_s = 0.0
        self._behind_s = 0.0

    @property
    def retry_after_ms(self) -> int:
        """When to try again: later, the more is refused."""
        return min(RETRY_MAX_MS, int(RETRY_MS / self.share))

    def admits(self, waiting: int) -> bool:
        """Whether the next envelope is admitted, behind `waiting` others; refusals are spread evenly."""
        if self.share >= 1.0 or waiting < FREE_ROWS:
            return True
        self._credit += self.share
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True

    def committed(self, took_s: float) -> None:
        """A commit took so long."""
        self._commit_s = took_s
        self._busy.set()

    def ticked(self, overdue_s: float) -> None:
        """A timer of `TICK_S` rang so late."""
        self._behind_s = MEMORY * self._behind_s + (1 - MEMORY) * (overdue_s + COMMITS * self._commit_s)
        if self._behind_s > self._latest_s:
            self.share = max(LEAST_SHARE, self.share * (FALL if self._behind_s < 2 * self._latest_s else FALL_FAST))
        elif self._behind_s < self._latest_s / 2:
            self.share = min(1.0, self.share + RISE)
        self._commit_s *= 0.5  # without commits, the last one says nothing any more

    async def watch_forever(self) -> None:
        """Measure the loop, while there are commits or something is refused: an idle broker does not wake up for it."""
        loop = asyncio.get_running_loop()
        while True:
            if self.share >= 1.0 and self._commit_s < TICK_S:
                self._busy.clear()
                await self._busy.wait()
            due = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            self.ticked(loop.time() - due)
