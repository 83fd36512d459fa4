"""How fast to submit to a broker that said `rate_limited`: slower at once, faster again bit by bit."""

from typing import Final

from claudemesh.types import UnixMillis

MIN_INTERVAL_MS: Final = 10.0
MAX_INTERVAL_MS: Final = 1_000.0
_SPEED_UP: Final = 0.99


class Pace:
    """Interval between two submissions; 0 while the broker never complained."""

    def __init__(self) -> None:
        self._interval_ms = 0.0
        self._next_at = 0.0

    def slow_down(self, now: UnixMillis, retry_after_ms: int) -> None:
        """The broker refused for now: pause, then go at half the speed."""
        doubled = max(self._interval_ms * 2, MIN_INTERVAL_MS)
        self._interval_ms = min(doubled, MAX_INTERVAL_MS)
        self._next_at = max(self._next_at, float(now + retry_after_ms))

    def speed_up(self, accepted: int) -> None:
        """The broker accepted: a hundredth faster for each."""
        if self._interval_ms:
            self._interval_ms *= _SPEED_UP**accepted
            if self._interval_ms < MIN_INTERVAL_MS / 2:
                self._interval_ms = 0.0

    def allowance(self, now: UnixMillis, most: int) -> int:
        """How many may be submitted now, at most `most`."""
        if now < self._next_at:
            return 0
        if not self._interval_ms:
            return most
        # A loop that wakes late may catch up on a tenth of a second, not on a whole idle minute.
        self._next_at = max(self._next_at, now - 100.0)
        return min(most, 1 + int((now - self._next_at) / self._interval_ms))

    def spend(self, submitted: int, now: UnixMillis) -> None:
        """So many were submitted."""
        if self._interval_ms:
            self._next_at = max(self._next_at, now - 100.0) + submitted * self._interval_ms

    def next_at(self) -> UnixMillis | None:
        """When the next submission is allowed, if it is not always."""
        return UnixMillis(int(self._next_at) + 1) if self._interval_ms or self._next_at else None
