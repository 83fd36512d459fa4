"""One TCP connection of a client, of which can be asked whether everything that was written has left.

uvicorn tells an application neither that a client went away while its answer was written, nor when the last byte has
gone out; a message counts as offered on exactly that. Nor does it end connections on which nothing is asked.
"""

import asyncio
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

STATE: Final = "claudemesh.connection"
"""Under this key of the ASGI scope's `state` a request finds its connection."""
HEAD_WITHIN_S: Final = 10.0
"""A connection on which no whole head of a request came for this long is ended."""
BODY_WITHIN_S: Final = 20.0
"""So is one on which the body did not come within this time after the head."""


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
        self._deadline: asyncio.TimerHandle | None = None
        self._within_s: float | None = None
        """Of the deadline, from when it was set."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency:
            transport.abort()  # whoever has no token is not even told; those who are connected are served
            return
        self._await(HEAD_WITHIN_S)
        transport.set_write_buffer_limits(high=0)  # so that "not paused" is "nothing is left in this process"

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._await(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        asked: RequestResponseCycle | None = self.cycle
        if asked is None or asked.response_complete:
            self._await(HEAD_WITHIN_S)
        else:
            self._await(BODY_WITHIN_S if asked.more_body else None)

    async def flushed(self) -> bool:
        """Wait until the system has all that was written; whether the connection still stands then."""
        await self.flow.drain()
        return not self._is_lost

    def _await(self, within_s: float | None) -> None:
        """What comes next has this long, from when it is first waited for; None is as long as it takes."""
        if within_s == self._within_s:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None
        if within_s is not None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(within_s, self.transport.abort)
        self._within_s = within_s
