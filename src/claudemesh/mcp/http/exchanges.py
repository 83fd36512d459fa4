"""One HTTP request and its answer, as the relay sees it: whose it is, what it carried, and whether that has left."""

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from mcp_types import ErrorData, JSONRPCError, RequestId
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from claudemesh.mcp.http.connections import STATE, WatchedConnection

if TYPE_CHECKING:
    from claudemesh.mcp.http.link import Link

SESSION_HEADER: Final = "mcp-session-id"
VERSION_HEADER: Final = "mcp-protocol-version"
EXCHANGE: Final = "claudemesh.exchange"
"""Under this key of the ASGI scope."""
_ANSWER: Final = b'"result"'
"""Stands in every answer of JSON-RPC, and in no notification of ours."""
TOO_MANY: Final = 429


class Refusal(NamedTuple):
    """Why a client gets nothing now: it has its share already. Nothing of its request took effect."""

    code: int
    """Of JSON-RPC."""
    message: str
    retry_after_s: int


class Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope) -> None:
        self.client: str = scope["user"].display_name
        self.query: str = scope["query_string"].decode("latin-1")
        headers = Headers(scope=scope)
        self.session_id = headers.get(SESSION_HEADER)
        """The session of the 2025 protocol that it names: a claim, until somebody has checked whose that is."""
        version = headers.get(VERSION_HEADER)
        self.opens = self.session_id is None and (version is None or version in HANDSHAKE_PROTOCOL_VERSIONS)
        """Whether the SDK makes a session of the 2025 protocol for it, which it keeps if it answers with its id."""
        self.has_place = False
        """Whether it counts as one of its client's sessions until it is over."""
        self.refusal: Refusal | None = None
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
        """A client that has shown its token asks for something; it is refused, and over, if this sets a refusal."""
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
                if exchange.refusal is not None:
                    _refuse(message, exchange.refusal)
                exchange.status = message["status"]
                exchange.named = Headers(raw=message["headers"]).get(SESSION_HEADER)
                await send(message)
                return
            self._watcher.answers(exchange)
            await send(message)
            if exchange.carried is not None and _ANSWER in message.get("body", b"") and await exchange.has_left():
                self._watcher.left(exchange)

        self._watcher.begins(exchange)
        if exchange.refusal is not None:
            await _refused(exchange.refusal)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, told)
        finally:
            exchange.is_over = True
            self._watcher.ends(exchange)


def _refused(refusal: Refusal) -> Response:
    """The answer to a request of which not even the body was read."""
    error = JSONRPCError(jsonrpc="2.0", id=None, error=ErrorData(code=refusal.code, message=refusal.message))
    body = error.model_dump_json(by_alias=True, exclude_unset=True)
    headers = {"Retry-After": str(refusal.retry_after_s)}
    return Response(body, status_code=TOO_MANY, headers=headers, media_type="application/json")


def _refuse(start: Message, refusal: Refusal) -> None:
    """Make an error of JSON-RPC, which has status 200, one of HTTP as well."""
    start["status"] = TOO_MANY
    start["headers"] = [*start["headers"], (b"retry-after", str(refusal.retry_after_s).encode())]
