"""SQLite with one writer thread and group commit, for the broker's store and the peer's journal (docs/adr/0007)."""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
"""What runs inside a transaction: SQL with bound parameters, and nothing else.

It may run twice (a batch in which another operation failed is rolled back and repeated), it runs on the
database's own thread, and it neither begins nor commits. So it must not change anything but the database,
except where repeating the change is harmless.
"""


class Migration(NamedTuple):
    """One step of the schema: its number, its file name and its statements, the last of which sets `user_version`."""

    version: int
    name: str
    sql: str


def load_migrations(package: str) -> tuple[Migration, ...]:
    """The files `NNNN_*.sql` of a package such as `claudemesh.broker.store.migrations`, in order."""
    raise NotImplementedError


class Database:
    """One SQLite file: `async with Database(...)` or `open()` and `close()`, all on one event loop."""

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

    async def open(self) -> None:
        """Open the file and apply the missing migrations.

        Raises:
            LocalError: `newer_schema`, `journal_damaged`, `disk`, `config_mode`, `config_locked`.
        """

    async def close(self) -> None:
        """Finish every operation that was called, then close the file."""

    async def write(self, operation: Operation[T]) -> T:
        """Run `operation` in a transaction on the writer thread; returns after the commit is on disk.

        Operations that wait at the same time share one transaction. One that raises is undone alone, and its
        exception is raised here. A caller that is cancelled does not undo its operation.

        Raises:
            LocalError: `disk` or `journal_damaged`: no operation of the batch took effect.
        """
        raise NotImplementedError

    async def read(self, operation: Operation[T]) -> T:
        """Run `operation` on a consistent snapshot of what is committed, beside the writer; it cannot write."""
        raise NotImplementedError
