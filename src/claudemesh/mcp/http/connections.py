"""One TCP connection of a client, of which can be asked whether everything that was written has left.

uvicorn tells an application neither that a client went away while its answer was written, nor when the last byte has
gone out; a message counts as offered on exactly that.
"""

import asyncio
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

STATE: Final = "claudemesh.connection"
"""Under this key of the ASGI scope's `state` a request finds its connection."""


class WatchedConnection(H11Protocol):
    """uvicorn's connection, watched."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, STATE: self}, _loop)
        self._is_lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that "not paused" is "nothing is left in this process"

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        super().connection_lost(exc)

    async def flushed(self) -> bool:
        """Wait until the system has all that was written; whether the connection still stands then."""
        await self.flow.drain()
        return not self._is_lost
