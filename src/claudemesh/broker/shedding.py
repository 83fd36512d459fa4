"""Refuse early under overload, so that what is admitted is answered soon (docs/spec/broker.md §4).

A broker that takes more than it can store does not fail, it gets late. How late an envelope would be that arrives now
is known beforehand: what waits before it, at the rate at which commits have stored lately, and how long the event
loop's timers are overdue. One that would be later than the target is refused, and told when to come again.
"""

import asyncio
from typing import Final

TICK_S: Final = 0.02
HEADROOM: Final = 0.6
"""Share of the target that an envelope may wait for its commit: the rest is for its answer, and for a slower commit."""
MEMORY: Final = 0.8
"""Weight of what was measured before: one late tick, or one slow commit, is not a late broker."""
FIRST_ROWS_PER_S: Final = 20_000
_FIRST_S: Final = 0.02
"""How much the first guess counts: as much as one commit of so long."""
FREE_ROWS: Final = 128
"""A queue this short is stored within milliseconds: a disk that stalls once makes nobody come again."""
RETRY_MS: Final = 100
RETRY_MAX_MS: Final = 5_000
REFUSALS_PER_S: Final = 1_000
"""So many cost little; where there are more, each is asked to stay away for longer."""
_GOLDEN: Final = 0.618_033_988_75
"""Steps of this size fill an interval evenly, wherever one stops."""


class Shedding:
    """How much more may wait for its commit now."""

    __slots__ = ("_behind_s", "_busy", "_phase", "_refused_per_s", "_rows", "_seconds", "_target_s", "room")

    def __init__(self, answer_within_ms: int) -> None:
        """Aim at answering within so many milliseconds."""
        self._target_s = answer_within_ms / 1_000
        self._busy = asyncio.Event()
        self._behind_s = 0.0
        self._rows = FIRST_ROWS_PER_S * _FIRST_S
        self._seconds = _FIRST_S
        self._refused_per_s = 0.0
        self._phase = 0.0
        self.room = 0
        """Rows that may wait; more are refused."""
        self._look()

    def admits(self, waiting: int) -> bool:
        """Whether the next envelope is admitted, behind `waiting` rows that are not committed yet."""
        if waiting < self.room:
            return True
        self._refused_per_s += 1.0
        self._busy.set()
        return False

    def retry_after_ms(self) -> int:
        """When to try again: later, the more are refused, and not all at once."""
        self._phase = (self._phase + _GOLDEN) % 1.0
        longer = 1.0 + self._refused_per_s / REFUSALS_PER_S
        return min(RETRY_MAX_MS, int(RETRY_MS * longer * (0.5 + self._phase)))

    def committed(self, rows: int, took_s: float) -> None:
        """A commit of so many rows took so long."""
        if rows:
            self._rows = MEMORY * self._rows + rows
            self._seconds = MEMORY * self._seconds + took_s
            self._look()
            self._busy.set()

    def ticked(self, overdue_s: float) -> None:
        """A timer of `TICK_S` rang so late."""
        late_s = min(overdue_s, 2 * self._target_s)
        self._behind_s = MEMORY * self._behind_s + (1 - MEMORY) * late_s
        self._refused_per_s *= 1.0 - TICK_S
        self._look()

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

    def _look(self) -> None:
        left_s = HEADROOM * self._target_s - self._behind_s
        self.room = max(FREE_ROWS, int(left_s * self._rows / self._seconds))
