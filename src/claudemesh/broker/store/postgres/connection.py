"""One connection to PostgreSQL, and what its failures mean: the only module that knows the driver."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]

from claudemesh.broker.store.url import DatabaseUrl
from claudemesh.errors import LocalError

CONNECT_TIMEOUT_S: Final = 10.0
COMMAND_TIMEOUT_S: Final = 20.0
"""A server that does not answer for so long is as good as gone."""
OLDEST_SERVER: Final = 15

SETTINGS: Final = {
    "application_name": "claudemesh-broker",
    # A transaction that has waited for a mesh reads what its predecessor wrote, whatever the role's defaults are; and
    # no statement ends before the driver's patience does.
    "default_transaction_isolation": "read committed",
    "statement_timeout": "0",
    # A broker that was frozen in the middle of a transaction must not hold its locks against the others.
    "idle_in_transaction_session_timeout": "4000",
    "lock_timeout": "6000",
    # Every statement here reads a few rows by an index. Without statistics, as of a new or a just emptied table, the
    # planner would rather scan, and keep that plan when the table has grown.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # It does not mark what it finds dead, which each later look at a mailbox would find again until it is vacuumed.
    "enable_bitmapscan": "off",
    "jit": "off",
}

_END_STOPPED: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
        AND application_name = current_setting('application_name') AND query LIKE 'COPY %'
        AND wait_event = 'ClientRead'
        AND query_start < clock_timestamp() - current_setting('idle_in_transaction_session_timeout')::interval
"""

_UNREACHABLE: Final = ("08", "57", "53", "25006")
"""Classes of SQLSTATE: the connection, an operator's stop, missing resources, a server that became a replica."""
_REFUSED: Final = ("28", "3D", "42501")
_WORDS: Final = {
    "28P01": "the password is refused",
    "28000": "the account is refused",
    "3D000": "there is no such database",
    "42501": "the account may not use it",
}
_DISK: Final = ("53100", "58")
_DAMAGED: Final = ("XX001", "XX002")
_RETRIED: Final = ("40001", "40P01", "55P03")


class Connection:
    """A connection on which SQL with bound parameters is run; errors are those of the driver, see `failure_of`."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    @property
    def is_closed(self) -> bool:
        """Whether the server or the network has ended it."""
        closed: bool = self._driver.is_closed()
        return closed

    async def fetch(self, sql: str, *parameters: Any) -> list[Any]:
        """Run one statement; returns its rows."""
        rows: list[Any] = await self._driver.fetch(sql, *parameters)
        return rows

    async def value(self, sql: str, *parameters: Any) -> Any:
        """Run one statement; returns the first column of its first row, None when it has none."""
        return await self._driver.fetchval(sql, *parameters)

    async def execute(self, sql: str, *parameters: Any) -> int:
        """Run one statement, or without parameters several; returns how many rows the last one has changed."""
        status: str = await self._driver.execute(sql, *parameters)
        count = status.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0

    async def commit(self) -> None:
        """End the transaction; raises when the server rolled it back instead."""
        if await self._driver.execute("COMMIT") != "COMMIT":
            raise LocalError("database_unreachable", "the transaction was rolled back")

    async def copy(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert many rows; none of them may exist."""
        if rows:
            await self._driver.copy_records_to_table(table, columns=columns, records=rows)

    async def end_stopped(self) -> None:
        """End the connections of brokers that stopped in the middle of a COPY, with all that they hold.

        While the server waits for the rest of one, none of its own timeouts counts.
        """
        await self._driver.execute(_END_STOPPED)

    def drop(self) -> None:
        """Close it at once, whatever it does."""
        self._driver.terminate()

    async def close(self) -> None:
        """Close it in order, or at once if that takes long."""
        try:
            await self._driver.close(timeout=CONNECT_TIMEOUT_S)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._driver.terminate()


async def connect(url: DatabaseUrl, *, patient: bool = False) -> Connection:
    """Open a connection.

    Args:
        patient: For statements that may take minutes, and for locks that may be held as long: changes of the schema.

    Raises:
        LocalError: `database_unreachable`, `database_refused`: the account, the database or the server's version.
    """
    try:
        driver = await asyncpg.connect(
            url.secret,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=None if patient else COMMAND_TIMEOUT_S,
            server_settings=SETTINGS | {"lock_timeout": "0"} if patient else SETTINGS,
        )
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # The driver's own words may repeat the URL: they are not passed on.
        raise _refusal(url, error) from None
    version = driver.get_server_version()
    if version.major < OLDEST_SERVER:
        driver.terminate()
        raise LocalError("database_refused", f"{url}: PostgreSQL {version.major} is older than {OLDEST_SERVER}")
    connection = Connection(driver)
    # `local` and the stronger levels flush to disk before a commit returns; `off` does not.
    if await connection.value("SHOW synchronous_commit") == "off":
        await connection.execute("SET synchronous_commit = on")
    return connection


def failure_of(error: BaseException) -> LocalError | None:
    """What an error means for a caller of the store, or None when it is not the fault of server or network."""
    if isinstance(error, LocalError):
        return error
    if isinstance(error, OSError | TimeoutError):
        return LocalError("database_unreachable", type(error).__name__)
    # The driver has no class of its own for a connection that ended under a caller, or before it has noticed.
    if isinstance(error, asyncpg.InternalClientError) or (
        isinstance(error, asyncpg.InterfaceError) and "closed" in str(error)
    ):
        return LocalError("database_unreachable", "connection closed")
    state = _state_of(error)
    if state is None:
        return None
    for code, states in (
        ("journal_damaged", _DAMAGED),
        ("disk", _DISK),
        ("database_refused", _REFUSED),
        ("database_unreachable", (*_UNREACHABLE, *_RETRIED)),
    ):
        if state.startswith(states):
            return LocalError(code, state)
    return None


@contextmanager
def translated() -> Iterator[None]:
    """Raise the failures of server and network as `LocalError`; whatever else is raised passes."""
    try:
        yield
    except LocalError:
        raise
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        raise failure from error


def may_be_repeated(error: BaseException) -> bool:
    """Whether the server undid a transaction only because others ran beside it."""
    return (_state_of(error) or "") in _RETRIED


def _state_of(error: BaseException) -> str | None:
    if not isinstance(error, asyncpg.PostgresError):
        return None
    if isinstance(error, asyncpg.ConnectionDoesNotExistError):
        return "08003"
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def _refusal(url: DatabaseUrl, error: Exception) -> LocalError:
    if isinstance(error, asyncio.TimeoutError):
        return LocalError("database_unreachable", f"{url}: no answer")
    if isinstance(error, OSError):
        return LocalError("database_unreachable", f"{url}: {error.strerror or type(error).__name__}")
    failure = failure_of(error)
    if failure is None or failure.code not in ("database_unreachable", "disk"):
        state = _state_of(error) or type(error).__name__
        return LocalError("database_refused", f"{url}: {_WORDS.get(state, state)}")
    return LocalError(failure.code, f"{url}: {failure.detail}")
