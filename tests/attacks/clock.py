"""Time in a test: a clock that can be moved, and waiting for what must happen."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from claudemesh.types import UnixMillis

PATIENCE_S: Final = 10.0
"""How long an attack waits for something that must happen; reaching it is a failure, never a result."""


class Clock:
    """The time in one test's world; `advance` moves everybody who was given it."""

    def __init__(self) -> None:
        self.offset_ms = 0

    def __call__(self) -> UnixMillis:
        return UnixMillis(time.time_ns() // 1_000_000 + self.offset_ms)

    def advance(self, by_ms: int) -> None:
        self.offset_ms += by_ms


async def eventually(condition: Callable[[], Any], what: str, within_s: float = PATIENCE_S) -> Any:
    """Wait until `condition` is true and return its value."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"in {within_s} s it did not happen that {what}"
        await asyncio.sleep(0.01)
    return value
