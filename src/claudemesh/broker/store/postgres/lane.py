"""The writing connection: operations that wait at the same time share one transaction (docs/adr/0010).

After a failure the connection is made anew, at once and then ever more seldom; meanwhile callers are refused and
nothing piles up.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from claudemesh.broker.store.base import Outdated
from claudemesh.broker.store.postgres.connection import Connection, failure_of, may_be_repeated
from claudemesh.broker.store.postgres.transaction import Transaction
from claudemesh.errors import LocalError
from claudemesh.types import MeshId

T = TypeVar("T")
Operation = Callable[[Transaction], Awaitable[T]]
"""What runs inside a transaction; it may run several times, and begins and commits nothing.

What it changes outside the database must be harmless to repeat, or be forgotten by `on_rollback`. An `Outdated` it
raises before it has changed anything.
"""

MAX_BATCH: Final = 512
MAX_WAITING: Final = 8_192
ATTEMPTS: Final = 5
RECONNECT_MIN_S: Final = 0.1
RECONNECT_MAX_S: Final = 5.0


class _Job:
    """One operation, the meshes that it writes to, its caller's future, and how it ended."""

    __slots__ = ("error", "future", "meshes", "operation", "value")

    def __init__(self, operation: Operation[Any], meshes: Collection[MeshId], future: asyncio.Future[Any]) -> None:
        self.operation = operation
        self.meshes = meshes
        self.future = future
        self.value: Any = None
        self.error: Exception | None = None


class Lane:
    """Carries out operations in the order in which they were asked for."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], on_rollback: Callable[[], None]) -> None:
        """Describe a lane; `start` begins.

        Args:
            connect: Opens a connection, or raises `LocalError`.
            on_rollback: Forgets what was cached: something was undone.
        """
        self._connect = connect
        self._on_rollback = on_rollback
        self._connection: Connection | None = None
        self._jobs: deque[_Job] = deque()
        self._room = asyncio.Semaphore(MAX_WAITING)
        self._wake = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._retry_at = 0.0
        self._pause_s = 0.0
        self._failure: LocalError | None = None

    def start(self, connection: Connection) -> None:
        """Begin with a connection that is open."""
        self._connection = connection
        self._task = asyncio.get_running_loop().create_task(self._run(), name="postgres-writer")

    async def stop(self) -> None:
        """Finish what was asked for, then close."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await self._task
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def do(self, operation: Operation[T], meshes: Collection[MeshId] = ()) -> T:
        """Run `operation` in a transaction that holds `meshes`; returns after the commit is on disk.

        An operation that raises is undone alone. A caller that is cancelled does not undo its operation.

        Raises:
            LocalError: No operation of the transaction was answered. When the connection was lost during the commit,
                nobody knows whether it took effect.
        """
        if self._task is None or self._stopping:
            raise AssertionError("the store is not open")
        async with self._room:
            job = _Job(operation, meshes, asyncio.get_running_loop().create_future())
            self._jobs.append(job)
            self._wake.set()
            result: T = await job.future
            return result

    async def _run(self) -> None:
        while self._jobs or not self._stopping:
            if not self._jobs:
                self._wake.clear()
                await self._wake.wait()
                continue
            batch = [self._jobs.popleft() for _ in range(min(len(self._jobs), MAX_BATCH))]
            try:
                await self._carry_out(batch)
            except Exception as error:  # noqa: BLE001 - the callers of this batch get it; the lane serves the next one
                self._on_rollback()
                self._drop()
                for job in batch:
                    job.error = failure_of(error) or error
            for job in batch:
                _resolve(job)

    async def _carry_out(self, batch: Sequence[_Job]) -> None:
        """Commit a batch, again if the server undid it for the sake of another transaction."""
        connection = await self._connected()
        for attempt in range(ATTEMPTS):
            try:
                if not await self._together(connection, batch):
                    await self._apart(connection, batch)
            except Exception as error:
                if attempt == ATTEMPTS - 1 or not may_be_repeated(error):
                    raise
                await self._roll_back(connection)
                await connection.end_stopped()
            else:
                return

    async def _together(self, connection: Connection, batch: Sequence[_Job]) -> bool:
        """All operations one after the other; false when one of several has failed, and all were undone."""
        await connection.execute("BEGIN")
        transaction = Transaction(connection)
        await _hold(transaction, batch)
        for job in batch:
            if not await self._attempt(job, transaction):
                await self._roll_back(connection)
                return len(batch) == 1
        await transaction.flush()
        await connection.commit()
        return True

    async def _apart(self, connection: Connection, batch: Sequence[_Job]) -> None:
        """Each operation with a savepoint of its own, so that only those that fail are undone."""
        await connection.execute("BEGIN")
        transaction = Transaction(connection)
        await _hold(transaction, batch)
        for job in batch:
            await connection.execute("SAVEPOINT job")
            if await self._attempt(job, transaction):
                await transaction.flush()
            else:
                await connection.execute("ROLLBACK TO job")
                self._on_rollback()
                await transaction.restore({mesh for one in batch for mesh in one.meshes})
            await connection.execute("RELEASE job")
        await connection.commit()

    async def _attempt(self, job: _Job, transaction: Transaction) -> bool:
        """Run one operation; false when something of it has to be undone."""
        job.value = job.error = None
        try:
            job.value = await job.operation(transaction)
        except Outdated as error:
            job.error = error
        except Exception as error:
            if not isinstance(error, LocalError) and failure_of(error) is not None:
                raise
            job.error = error
            return False
        return True

    async def _roll_back(self, connection: Connection) -> None:
        self._on_rollback()
        await connection.execute("ROLLBACK")

    async def _connected(self) -> Connection:
        """The connection, made anew if it was lost and the pause after the last failure is over."""
        if self._connection is not None and not self._connection.is_closed:
            return self._connection
        self._drop()
        now = asyncio.get_running_loop().time()
        if self._failure is not None and now < self._retry_at:
            raise LocalError(self._failure.code, self._failure.detail)
        try:
            self._connection = await self._connect()
        except LocalError as error:
            self._pause_s = min(RECONNECT_MAX_S, max(RECONNECT_MIN_S, 2 * self._pause_s))
            self._retry_at = asyncio.get_running_loop().time() + self._pause_s
            self._failure = error
            raise
        self._pause_s, self._failure = 0.0, None
        return self._connection

    def _drop(self) -> None:
        """Whatever is known of the connection's transaction is not known for sure: use it no more."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError):
                connection.drop()


async def _hold(transaction: Transaction, batch: Sequence[_Job]) -> None:
    meshes = {mesh for job in batch for mesh in job.meshes}
    if meshes:
        await transaction.hold(meshes)


def _resolve(job: _Job) -> None:
    if job.future.done():
        return
    if job.error is None:
        job.future.set_result(job.value)
    else:
        job.future.set_exception(job.error)
