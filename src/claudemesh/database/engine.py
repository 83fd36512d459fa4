"""The database: operations from one event loop, one thread that writes, one that reads (docs/adr/0007)."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self, TypeVar

from claudemesh.database import file
from claudemesh.database.brief import BriefWriter
from claudemesh.database.migrations import Migration, migrate
from claudemesh.database.worker import Job, Worker

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
"""What runs inside a transaction: SQL with bound parameters, and nothing else.

It may run twice (a batch in which another operation failed is rolled back and repeated), it runs on the
database's own thread, and it neither begins nor commits. So it must not change anything but the database,
except where repeating the change is harmless.
"""


class Database:
    """One SQLite file: `async with Database(...)`, or `open()` and `close()`, all on one event loop."""

    def __init__(
        self,
        path: Path | None,
        *,
        migrations: Sequence[Migration],
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        on_rollback: Callable[[], None] | None = None,
    ) -> None:
        """Describe a database; nothing is touched before `open`.

        Args:
            path: The file, created with mode 0600 when missing. None keeps a private database in memory.
            migrations: Every step of the schema, 1 to N.
            on_rollback: Called on the writer thread after anything was undone, to forget what was cached.
        """
        self._path = path
        self._migrations = migrations
        self._synchronous: Literal["FULL", "NORMAL"] = synchronous
        self._on_rollback = on_rollback or _nothing
        self._hold: file.Hold | None = None
        self._connections: list[sqlite3.Connection] = []
        self._writer: Worker | None = None
        self._reader: Worker | None = None
        self._brief: BriefWriter | None = None
        self._snapshots: _Snapshots | None = None

    async def open(self) -> None:
        """Open the file and apply the missing migrations.

        Raises:
            LocalError: `newer_schema`, `journal_damaged`, `disk`, `config_mode`, `config_locked`.
        """
        try:
            await asyncio.to_thread(self._open_connections)
        except sqlite3.Error as error:
            raise file.failure_of(error) or error from error
        transactions = _Transactions(self._connections[0], self._on_rollback)
        self._writer = self._reader = Worker("database-writer", transactions.run)
        if len(self._connections) > 1:
            self._brief = BriefWriter(self._connections[0], self._writer, transactions.rollback)
            self._snapshots = _Snapshots(self._connections[1])
            self._reader = Worker("database-reader", self._snapshots.run)

    async def close(self) -> None:
        """Finish every operation that was called, then close the file."""
        writer, reader, self._writer, self._reader = self._writer, self._reader, None, None
        if self._brief is not None:
            self._brief.hand_over()
            self._brief = self._snapshots = None
        if reader is not None and reader is not writer:
            await reader.stop()
        if writer is not None:
            await writer.stop()
        await asyncio.to_thread(self._close_connections)

    async def write(self, operation: Operation[T], *, brief: bool = False) -> T:
        """Run `operation` in a transaction; returns after the commit is on disk.

        Operations that wait at the same time share one transaction. One that raises is undone alone, and its
        exception is raised here. A caller that is cancelled does not undo its operation.

        Args:
            brief: It touches at most a few hundred rows, found by their keys, and some ten kilobytes: its statements
                run on the loop where the writer thread is free, which then only commits.

        Raises:
            LocalError: `disk` or `journal_damaged`: no operation of the batch took effect.
        """
        if self._writer is None:
            raise AssertionError("the database is not open")
        if self._brief is not None:
            if brief and not self._brief.is_full:
                in_brief: T = await self._brief.do(operation)
                return in_brief
            self._brief.hand_over()
        result: T = await self._writer.do(operation)
        return result

    async def read(self, operation: Operation[T], *, brief: bool = False) -> T:
        """Run `operation` on a consistent snapshot of what is committed, beside the writer; it cannot write.

        Args:
            brief: As of `write`: it runs on the loop where the reader thread is free.
        """
        if self._reader is None:
            raise AssertionError("the database is not open")
        if brief and self._snapshots is not None and self._reader.is_idle:
            return self._snapshots.look(operation)
        result: T = await self._reader.do(operation)
        return result

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _open_connections(self) -> None:
        try:
            if self._path is not None:
                file.prepare(self._path)
                self._hold = file.Hold(self._path)
            self._connections.append(file.connect(self._path, self._synchronous))
            migrate(self._connections[0], self._migrations)
            if self._path is not None:
                self._connections.append(file.connect_reader(self._path))
        except BaseException:
            self._close_connections()
            raise

    def _close_connections(self) -> None:
        # The writer goes last: the last connection to close moves the write-ahead log into the file.
        while self._connections:
            self._connections.pop().close()
        if self._hold is not None:
            self._hold.release()
            self._hold = None


class _Transactions:
    """Commits batches of jobs on the writing connection."""

    def __init__(self, connection: sqlite3.Connection, on_rollback: Callable[[], None]) -> None:
        self._connection = connection
        self._on_rollback = on_rollback

    def run(self, jobs: Sequence[Job]) -> None:
        """Carry out `jobs` in one transaction and commit it; the jobs hold the results.

        Within a transaction already, the first job stands for its commit.
        """
        if self._connection.in_transaction:
            self._commit(jobs[0])
            jobs = jobs[1:]
        if not jobs:
            return
        try:
            if not self._together(jobs):
                self._apart(jobs)
        except Exception as error:  # noqa: BLE001 - the callers of this batch get it; the thread serves the next one
            self.rollback()
            for job in jobs:
                job.error = file.failure_of(error) or error

    def rollback(self) -> None:
        """Undo what is not committed."""
        # After a full disk SQLite may have rolled back by itself.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._on_rollback()

    def _commit(self, job: Job) -> None:
        try:
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the callers of that transaction get it
            self.rollback()
            job.error = file.failure_of(error) or error

    def _together(self, jobs: Sequence[Job]) -> bool:
        """All jobs without savepoints, which cost a copy of every page they touch; False when one of them raised."""
        self._connection.execute("BEGIN IMMEDIATE")
        for job in jobs:
            if not self._attempt(job):
                self.rollback()
                return len(jobs) == 1
        self._connection.execute("COMMIT")
        return True

    def _apart(self, jobs: Sequence[Job]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        for job in jobs:
            job.value = job.error = None
            self._connection.execute("SAVEPOINT job")
            if not self._attempt(job):
                self._connection.execute("ROLLBACK TO job")
                self._on_rollback()
            self._connection.execute("RELEASE job")
        self._connection.execute("COMMIT")

    def _attempt(self, job: Job) -> bool:
        try:
            job.value = job.operation(self._connection)
        except Exception as error:
            if file.failure_of(error) is not None:
                raise
            job.error = error
            return False
        return True


class _Snapshots:
    """Runs jobs on the reading connection, each on one snapshot."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, jobs: Sequence[Job]) -> None:
        """Carry out `jobs` one after the other; the jobs hold the results."""
        for job in jobs:
            try:
                job.value = self.look(job.operation)
            except Exception as error:  # noqa: BLE001 - it belongs to the caller of this job, who gets it
                job.error = error

    def look(self, operation: Operation[T]) -> T:
        """Run one operation; raises what it raises, or the `LocalError` that this means."""
        try:
            self._connection.execute("BEGIN")
            return operation(self._connection)
        except sqlite3.Error as error:
            failure = file.failure_of(error)
            if failure is None:
                raise
            raise failure from error
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _nothing() -> None:
    """There is no cache to forget."""
