"""A thread that carries out jobs in the batches in which they pile up, and answers each batch with one wake-up."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final

MAX_BATCH: Final = 1_024
MAX_WAITING: Final = 8_192


class Job:
    """One operation, its caller's future, and how it ended."""

    __slots__ = ("error", "future", "operation", "value")

    def __init__(self, operation: Callable[..., Any], future: asyncio.Future[Any]) -> None:
        self.operation = operation
        self.future = future
        self.value: Any = None
        self.error: Exception | None = None

    def resolve(self) -> None:
        """Tell the caller, if it still waits."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.value)
        else:
            self.future.set_exception(self.error)


class Worker:
    """Runs `run_batch` on its own thread with all the jobs that wait, and resolves their futures on the loop."""

    def __init__(self, name: str, run_batch: Callable[[Sequence[Job]], None]) -> None:
        self._run_batch = run_batch
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._room = asyncio.Semaphore(MAX_WAITING)
        self._unfinished = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._stopped = self._loop.create_future()
        self._thread.start()

    @property
    def is_idle(self) -> bool:
        """Whether the thread has nothing to do: what it works with may be used from the loop for a moment."""
        return self._unfinished == 0

    async def do(self, operation: Callable[..., Any]) -> Any:
        """Carry out one operation; waits first when too many wait already."""
        async with self._room:
            job = Job(operation, self._loop.create_future())
            self.submit(job)
            return await job.future

    def submit(self, job: Job) -> None:
        """Queue one job, however many wait."""
        self._unfinished += 1
        self._queue.put(job)

    async def stop(self) -> None:
        """Return when everything queued before has been carried out and the thread has ended."""
        self._queue.put(None)
        await self._stopped
        self._thread.join()

    def _run(self) -> None:
        running = True
        while running:
            jobs, running = self._next_batch()
            if jobs:
                self._run_batch(jobs)
                self._loop.call_soon_threadsafe(self._resolve, jobs)
        self._loop.call_soon_threadsafe(self._stopped.set_result, None)

    def _next_batch(self) -> tuple[list[Job], bool]:
        jobs: list[Job] = []
        job = self._queue.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == MAX_BATCH:
                return jobs, True
            try:
                job = self._queue.get_nowait()
            except Empty:
                return jobs, True
        return jobs, False

    def _resolve(self, jobs: Sequence[Job]) -> None:
        self._unfinished -= len(jobs)
        for job in jobs:
            job.resolve()
