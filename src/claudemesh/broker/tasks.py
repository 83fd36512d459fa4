"""The broker's own tasks: each has this owner, and an error that ends one of them is the broker's end."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from claudemesh.broker.logs import Log


class Tasks:
    """Tasks that run until they end by themselves, or the broker stops."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._running: set[asyncio.Task[None]] = set()
        self._failed = asyncio.get_running_loop().create_future()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as a task."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._finished)

    async def wait_failed(self) -> None:
        """Return never, or raise what ended one of the tasks."""
        await self._failed

    async def stop(self) -> None:
        """Cancel all that still run, and wait for their end."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        self._log.failure("task_failed", error)
        if not self._failed.done():
            self._failed.set_exception(error)
