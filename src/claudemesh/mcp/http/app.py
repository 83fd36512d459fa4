"""Composes and runs the HTTP server: uvicorn, the check of the token, the SDK's session manager, and the relay."""

import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import uvicorn
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.routing import Route

from claudemesh.daemon import launch
from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.daemon.logs import log_event, open_log
from claudemesh.errors import UsageError
from claudemesh.mcp.http.connections import WatchedConnection
from claudemesh.mcp.http.exchanges import Exchanges
from claudemesh.mcp.http.relay import Relay
from claudemesh.mcp.http.settings import MAX_BODY_BYTES, MAX_CONNECTIONS, PATH, Settings
from claudemesh.mcp.http.tokens import Tokens, load_tokens, token_file

KEEP_ALIVE_S: Final = 60
STOP_WITHIN_S: Final = 3
_BACKLOG: Final = 128

Started = Callable[[str, dict[str, str]], None]
"""Told the URL, and the file of each client's token."""


def run(config: ConfigDir, settings: Settings, say: Callable[[str], None], started: Started) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        UsageError: The settings are not safe, or the address cannot be had.
        LocalError, AnsweredError: Others can read the tokens; there is no daemon, and it cannot be started.
    """
    settings.check()
    config.ensure()
    tokens = load_tokens(config, settings.clients)
    launch.connect(config, say).close()
    with listen(settings) as listener, _logged(config):
        served = server(config, settings, tokens, listener)
        _stop_on_signals(served)
        url = f"http://{settings.listen.name}:{listener.getsockname()[1]}{PATH}"
        started(url, {name: str(token_file(config, name)) for name in tokens})
        log_event("mcp_http_started", count=len(tokens))
        served.run(sockets=[listener])


def listen(settings: Settings) -> socket.socket:
    """The socket of the address.

    Raises:
        UsageError: It cannot be had.
    """
    address = settings.listen
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        said = f"cannot listen on {address.name}:{address.port}: {error.strerror or error}"
        raise UsageError("usage", said) from error


def server(config: ConfigDir, settings: Settings, tokens: Mapping[str, str], listener: socket.socket) -> uvicorn.Server:
    """A server that is ready to run on a socket which listens."""
    return uvicorn.Server(_configuration(_application(config, settings, tokens, listener.getsockname()[1])))


def _application(config: ConfigDir, settings: Settings, tokens: Mapping[str, str], port: int) -> Starlette:
    relay = Relay(config, settings)
    manager = _manager(relay, settings, port)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with relay.run(), manager.run():
            yield

    served = Exchanges(StreamableHTTPASGIApp(manager), relay)
    return Starlette(
        routes=[Route(PATH, endpoint=RequireAuthMiddleware(served, required_scopes=[]))],
        middleware=[Middleware(AuthenticationMiddleware, backend=BearerAuthBackend(Tokens(tokens)))],
        lifespan=lifespan,
    )


def _manager(relay: Relay, settings: Settings, port: int) -> StreamableHTTPSessionManager:
    return StreamableHTTPSessionManager(
        relay.server,
        security_settings=TransportSecuritySettings(
            allowed_hosts=settings.hosts(port), allowed_origins=settings.origins(port)
        ),
        session_idle_timeout=settings.session_idle_s,
        max_request_body_size=MAX_BODY_BYTES,
        max_sessions=None,  # the relay has refused before, by client
    )


def _configuration(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=WatchedConnection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_WITHIN_S,
    )


@contextmanager
def _logged(config: ConfigDir) -> Iterator[None]:
    """Of libraries the log keeps the place in the code and no text: that may quote a header or a message."""
    handler = open_log(config.path / "mcp" / "http.log")
    try:
        yield
    finally:
        handler.close()


def _stop_on_signals(served: uvicorn.Server) -> None:
    """Until uvicorn listens to signals itself; when it has stopped it raises them anew, which then changes nothing."""

    def stop(_: int, __: object) -> None:
        served.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
