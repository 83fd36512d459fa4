"""The event loop that every process of ours runs on."""

import asyncio
import gc
import sys
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

GC_THRESHOLDS: Final = (50_000, 20, 100)
"""Our objects end by reference counts, hardly any in a cycle: at Python's 700 the search for cycles takes a tenth of
a busy broker's time and a sixth of a busy peer's, and finds next to nothing."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a process's main coroutine, on uvloop where there is one."""
    gc.freeze()  # what was imported stays
    gc.set_threshold(*GC_THRESHOLDS)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


def _loop_factory() -> Any:
    if sys.platform == "win32":
        return None
    try:
        import uvloop  # a platform without a build of it still runs, more slowly
    except ImportError:
        return None
    return uvloop.new_event_loop
