"""Reads beside the writer: a few connections, each statement on what is committed."""

from asyncio import Semaphore
from collections.abc import Awaitable, Callable
from typing import Any, Final

from claudemesh.broker.store.postgres.connection import Connection, translated
from claudemesh.errors import LocalError

CONNECTIONS: Final = 4


class Readers:
    """Connections that only read; one that was lost is made anew when it is needed."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._idle: list[Connection] = []
        self._room = Semaphore(CONNECTIONS)

    async def fetch(self, sql: str, *parameters: Any) -> list[Any]:
        """The rows of one statement; asked again when the connection turns out to be lost.

        Raises:
            LocalError: The database does not answer.
        """
        async with self._room:
            while self._idle:
                connection = self._idle.pop()
                try:
                    return await self._fetch(connection, sql, *parameters)
                except LocalError as error:
                    if error.code != "database_unreachable" or not connection.is_closed:
                        raise
            return await self._fetch(await self._connect(), sql, *parameters)

    async def close(self) -> None:
        """Close what is open."""
        while self._idle:
            await self._idle.pop().close()

    async def _fetch(self, connection: Connection, sql: str, *parameters: Any) -> list[Any]:
        try:
            with translated():
                rows = await connection.fetch(sql, *parameters)
        except BaseException:
            connection.drop()
            raise
        self._idle.append(connection)
        return rows
