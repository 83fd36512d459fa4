"""Refuse early under overload, so that what is admitted is answered soon (docs/spec/broker.md §4).

A broker that takes more than it can store does not fail, it gets late. So only so much may wait for its commit: more,
little by little, as long as the oldest of a batch is stored in time, and less at once when it is not. What a commit
takes need not be known for that, nor why. While the event loop's timers are overdue it is less, too: then frames wait
in sockets.
"""

import asyncio
from typing import Final

TICK_S: Final = 0.02
HEADROOM: Final = 0.5
"""Share of the target that an envelope may wait for its commit: the rest is for its answer, and for a slower commit."""
MEMORY: Final = 0.8
"""Weight of what was measured before: one late tick is not a late loop."""
FIRST_ROWS_PER_S: Final = 20_000
"""What commits store, as long as nothing is known of them."""
RISE: Final = 1.1
FALL_MOST: Final = 0.5
"""One commit that stalls halves what may wait, however long it took."""
FREE_ROWS: Final = 128
"""A queue this short is stored within milliseconds: a disk that stalls once makes nobody come again."""
RETRY_MS: Final = 30
RETRY_MAX_MS: Final = 5_000
REFUSALS_PER_S: Final = 8_000
"""So many cost a fifth of a core; towards it, and beyond, each is asked to stay away for longer."""
_GOLDEN: Final = 0.618_033_988_75
"""Steps of this size fill an interval evenly, wherever one stops."""


class Shedding:
    """How much more may wait for its commit now."""

    __slots__ = ("_behind_s", "_busy", "_longest_s", "_phase", "_queue", "_refused", "_refused_per_s")

    def __init__(self, answer_within_ms: int) -> None:
        """Aim at answering within so many milliseconds."""
        self._longest_s = HEADROOM * answer_within_ms / 1_000
        self._busy = asyncio.Event()
        self._behind_s = 0.0
        self._queue = FIRST_ROWS_PER_S * self._longest_s
        self._refused = False
        """Since the last commit."""
        self._refused_per_s = 0.0
        self._phase = 0.0

    @property
    def room(self) -> int:
        """Rows that may wait; what comes behind them is refused."""
        return max(FREE_ROWS, int(self._queue * (1.0 - self._behind_s / self._longest_s)))

    def admits(self, waiting: int) -> bool:
        """Whether the next envelope is admitted, behind `waiting` rows that are not committed yet."""
        if waiting < FREE_ROWS or waiting < self.room:
            return True
        self._refused = True
        self._refused_per_s += 1.0
        self._busy.set()
        return False

    def retry_after_ms(self) -> int:
        """When to try again: later, the more are refused, and not all at once."""
        self._phase = (self._phase + _GOLDEN) % 1.0
        longer = 1.0 + (self._refused_per_s / REFUSALS_PER_S) ** 2
        return min(RETRY_MAX_MS, int(RETRY_MS * longer * (0.5 + self._phase)))

    def committed(self, waited_s: float) -> None:
        """A commit has ended; the oldest of its envelopes has waited so long."""
        if waited_s > self._longest_s:
            self._queue = max(FREE_ROWS, self._queue * max(FALL_MOST, self._longest_s / waited_s))
        elif self._refused:
            self._queue *= RISE
        self._refused = False
        self._busy.set()

    def ticked(self, overdue_s: float) -> None:
        """A timer of `TICK_S` rang so late."""
        self._behind_s = MEMORY * self._behind_s + (1 - MEMORY) * min(overdue_s, 3 * self._longest_s)
        self._refused_per_s *= 1.0 - TICK_S

    async def watch_forever(self) -> None:
        """Measure the loop, while there are commits or something is refused: an idle broker does not wake up for it."""
        loop = asyncio.get_running_loop()
        while True:
            if self._behind_s < TICK_S and self._refused_per_s < 1.0:
                self._busy.clear()
                await self._busy.wait()
            due = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            self.ticked(loop.time() - due)
