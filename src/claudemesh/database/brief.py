"""Brief operations: their statements run on the event loop, and only their commit on the writer's thread.

A few rows in cached pages take some ten microseconds. Handed to a thread beside a busy loop, the same rows wait for
the interpreter's lock at every step, and both threads pay for each change of hands. The flush is what takes time, and
that needs no lock.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any, Final

from claudemesh.database.worker import Job, Worker

MAX_TOGETHER: Final = 64
"""Operations that hold up the loop at once; when more wait, the thread carries them out."""
BRIEF_BYTES: Final = 65_536
"""How much one of them may write."""
GATHER_TURNS: Final = 3
"""Turns of the loop before a transaction begins: what one arrival makes several tasks write shares a commit."""


class BriefWriter:
    """Gathers brief operations while a commit runs; the next transaction takes all of them."""

    def __init__(self, connection: sqlite3.Connection, writer: Worker, rollback: Callable[[], None]) -> None:
        """Share `connection` with `writer`, which finds it within a transaction when there is one to commit."""
        self._connection = connection
        self._writer = writer
        self._rollback = rollback
        self._loop = asyncio.get_running_loop()
        self._gathered: list[Job] = []
        self._is_busy = False

    @property
    def is_full(self) -> bool:
        """Whether no more may be gathered."""
        return len(self._gathered) >= MAX_TOGETHER

    async def do(self, operation: Callable[..., Any]) -> Any:
        """Carry out one operation; returns after its commit is on disk."""
        job = Job(operation, self._loop.create_future())
        self._gathered.append(job)
        if not self._is_busy:
            self._is_busy = True
            self._gather(GATHER_TURNS)
        return await job.future

    def hand_over(self) -> None:
        """Leave to the thread what was gathered, so that nothing overtakes it."""
        gathered, self._gathered = self._gathered, []
        for job in gathered:
            self._writer.submit(job)

    def _gather(self, turns: int) -> None:
        if turns:
            self._loop.call_soon(self._gather, turns - 1)
        else:
            self._begin()

    def _begin(self) -> None:
        if not self._gathered:
            self._is_busy = False
            return
        if not self._writer.is_idle or not self._carry_out(self._gathered):
            self.hand_over()
            self._is_busy = False
            return
        jobs, self._gathered = self._gathered, []
        commit = Job(_nothing, self._loop.create_future())
        self._writer.submit(commit)
        commit.future.add_done_callback(lambda _: self._end(commit, jobs))

    def _carry_out(self, jobs: list[Job]) -> bool:
        """Run the statements of all jobs; False when one raised, and then none of them took effect."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                job.value = job.operation(self._connection)
        except Exception:  # noqa: BLE001 - the thread carries them out again, and tells each caller its own error
            self._rollback()
            return False
        return True

    def _end(self, commit: Job, jobs: list[Job]) -> None:
        for job in jobs:
            job.error = commit.error
            job.resolve()
        commit.future.exception()
        self._gather(GATHER_TURNS)


def _nothing(_: sqlite3.Connection) -> None:
    """The commit of a transaction that was begun on the loop has no statements of its own."""
