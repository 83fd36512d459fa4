"""A machine's clock that can be set wrong and right again while its programs run, by libfaketime (Debian: libfaketime).

Only the wall clock jumps; intervals stay true, as on a real machine whose clock is set.
"""

import time
from pathlib import Path
from typing import Final

import pytest

READ_EVERY_S: Final = 1
"""How often a program looks what its clock shows; between a jump and that, it may show either."""
_LIBRARIES: Final = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1")


class Clock:
    """What the wall clock of one machine shows, and has shown."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._history: list[tuple[int, int]] = [(_now_ms(), 0)]
        """From when on (true Unix milliseconds), by how much it was ahead."""
        self._show(0)

    @property
    def environment(self) -> dict[str, str]:
        """With this, a program goes by this clock."""
        return {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_CACHE_DURATION": "0",  # whole seconds, of which the last one has to be over
            # Both only cost time: timed waits here are by the monotonic clock, and files have the true time.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "NO_FAKE_STAT": "1",
        }

    def jump(self, seconds: int) -> None:
        """Show the true time plus so many seconds from now on; 0 is right."""
        self._history.append((_now_ms(), seconds * 1000))
        self._show(seconds)

    @property
    def jumps(self) -> list[tuple[int, int]]:
        """Each setting: when, and how far off from then on, in milliseconds."""
        return self._history[1:]

    def true_times(self, shown_ms: int) -> list[int]:
        """When the clock may have shown this, earliest first: none when it never did."""
        found = []
        ends = [at for at, _ in self._history[1:]]
        for (begins, ahead), end in zip(self._history, [*ends, _now_ms()], strict=True):
            if begins <= shown_ms - ahead <= end + _SLACK_MS:
                found.append(shown_ms - ahead)
        return sorted(found)

    def _show(self, seconds: int) -> None:
        written = self._file.with_suffix(".new")
        written.write_text(f"{seconds:+d}\n")
        written.rename(self._file)  # never half of it


_SLACK_MS: Final = 2 * READ_EVERY_S * 1000


def _library() -> Path:
    for pattern in _LIBRARIES:
        for found in Path("/").glob(pattern.lstrip("/")):
            return found
    pytest.fail("this test sets clocks wrong, for which it needs libfaketime (Debian: libfaketime)")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
