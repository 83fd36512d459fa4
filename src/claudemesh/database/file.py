"""The database file: who may read it, which process has it, how it is opened, and what its failures mean."""

import os
import sqlite3
import stat
import sys
from pathlib import Path
from typing import Final, Literal

from claudemesh.errors import LocalError

PAGE_BYTES: Final = 8_192
"""Three envelopes to a page: a full batch takes two thirds of the time that it does with 4,096."""
CHECKPOINT_PAGES: Final = 2_000
CACHE_KIB: Final = 32_768
WAL_LIMIT_BYTES: Final = 64 << 20
BUSY_TIMEOUT_S: Final = 5.0

_DISK: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PROTOCOL,
    }
)
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def failure_of(error: BaseException) -> LocalError | None:
    """What an error of SQLite means for its caller, or None when it is not the machine's fault."""
    if not isinstance(error, sqlite3.Error):
        return None
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    name = getattr(error, "sqlite_errorname", "")
    if code & 0xFF in _DISK:
        return LocalError("disk", name)
    if code & 0xFF in _DAMAGED:
        return LocalError("journal_damaged", name)
    return None


def prepare(path: Path) -> None:
    """Create the file with mode 0600 if it is missing; SQLite gives its side files the same mode.

    Raises:
        LocalError: `config_mode`: others can read or write it. `disk`: it cannot be created.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise LocalError("disk", f"{path}: {error.strerror}") from error
    if os.name == "posix" and mode & 0o077:
        raise LocalError("config_mode", f"chmod 600 {path}")


def connect(path: Path | None, synchronous: Literal["FULL", "NORMAL"]) -> sqlite3.Connection:
    """Open the writing connection, in WAL mode and with transactions left to the caller."""
    connection = sqlite3.connect(
        path or ":memory:", timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    for pragma in (
        f"PRAGMA page_size = {PAGE_BYTES}",
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL" if synchronous == "FULL" else "PRAGMA synchronous = NORMAL",
        "PRAGMA foreign_keys = ON",
        # What was acknowledged is overwritten, not merely unlinked: a stolen disk has no more than the queue.
        "PRAGMA secure_delete = ON",
        "PRAGMA temp_store = MEMORY",
        f"PRAGMA cache_size = -{CACHE_KIB}",
        f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}",
        f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}",
    ):
        connection.execute(pragma)
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a connection that sees committed snapshots and cannot write."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA query_only = ON")
    return connection


class Hold:
    """A lock that one process has on a database while it is open; the kernel drops it when the process dies.

    It is a file of its own: closing any descriptor of the database would drop SQLite's locks on it.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock, or raise `LocalError` `config_locked` when another process has it."""
        self._file = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(self._file)
        except OSError as error:
            os.close(self._file)
            raise LocalError("config_locked", f"{path} is open in another process") from error

    def release(self) -> None:
        """Let the lock go."""
        os.close(self._file)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
