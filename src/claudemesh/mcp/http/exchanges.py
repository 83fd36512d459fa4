"""One HTTP request and its answer, as the relay sees it: whose it is, what it carried, and whether that has left."""

from typing import TYPE_CHECKING, Final, Protocol

from mcp_types import RequestId
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from claudemesh.mcp.http.connections import STATE, WatchedConnection

if TYPE_CHECKING:
    from claudemesh.mcp.http.link import Link

SESSION_HEADER: Final = "mcp-session-id"
EXCHANGE: Final = "claudemesh.exchange"
"""Under this key of the ASGI scope."""
_ANSWER: Final = b'"result"'
"""Stands in every answer of JSON-RPC, and in no notification of ours."""


class Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope) -> None:
        self.client: str = scope["user"].display_name
        self.query: str = scope["query_string"].decode("latin-1")
        self.session_id = Headers(scope=scope).get(SESSION_HEADER)
        """The session of the 2025 protocol that it names: a claim, until somebody has checked whose that is."""
        self.named: str | None = None
        """The session that the answer names."""
        self.opened: Link | None = None
        """The link that this request to initialize has made, until the answer names its session."""
        self.is_end = scope["method"] == "DELETE"
        self.status = 0
        self.is_over = False
        self.link: Link | None = None
        self.asked: RequestId | None = None
        """The client's own id of its request."""
        self.carried: int | None = None
        """The request to the daemon whose result the answer carries; None once that has left."""
        self._connection: WatchedConnection | None = scope.get("state", {}).get(STATE)

    async def has_left(self) -> bool:
        """Whether all that was written went to the system, on a connection that stands; unknown is no."""
        return self._connection is not None and await self._connection.flushed()


class Watcher(Protocol):
    """Who is told of exchanges."""

    def begins(self, exchange: Exchange) -> None:
        """A client that has shown its token asks for something."""
        ...

    def answers(self, exchange: Exchange) -> None:
        """The head of the answer is known, and no byte of its body was written."""
        ...

    def left(self, exchange: Exchange) -> None:
        """The result that it carries has left for the client."""
        ...

    def ends(self, exchange: Exchange) -> None:
        """It is over, one way or another."""
        ...


class Exchanges:
    """ASGI middleware, behind the check of the token."""

    def __init__(self, app: ASGIApp, watcher: Watcher) -> None:
        self._app = app
        self._watcher = watcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope[EXCHANGE] = Exchange(scope)

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                exchange.named = Headers(raw=message["headers"]).get(SESSION_HEADER)
                await send(message)
                return
            self._watcher.answers(exchange)
            await send(message)
            if exchange.carried is not None and _ANSWER in message.get("body", b"") and await exchange.has_left():
                self._watcher.left(exchange)

        self._watcher.begins(exchange)
        try:
            await self._app(scope, receive, told)
        finally:
            exchange.is_over = True
            self._watcher.ends(exchange)
