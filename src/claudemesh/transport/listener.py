"""Accepts WebSockets and a few plain requests on TCP and Unix sockets (docs/spec/broker.md §2).

Until its owner vouches for it, a connection may send a few kilobytes for a few seconds, and there are only
so many such connections. What the far side does not read is buffered up to a limit, then the connection ends.
"""

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import WSMsgType, web
from aiohttp.web_protocol import RequestHandler

from claudemesh.errors import UsageError
from claudemesh.transport.addresses import source_of
from claudemesh.transport.excess import largest
from claudemesh.transport.frames import NORMAL, PATH, CloseCode, close_frame, text_frame
from claudemesh.transport.unix_socket import bound_socket

CLOSE_GRACE_S: Final = 2.0
"""How long the far side may take to read what was written before a close."""
ACCEPT_BACKLOG: Final = 1_024
UNIX_ADDRESS: Final = "unix"
"""Address of everybody who connects over the Unix socket."""
_MARGIN_BYTES: Final = 4_096
"""Above the largest frame: one that is only just too large is still answered before the link ends."""


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """What connections may use."""

    half_open: int
    half_open_per_address: int
    unauthenticated_bytes: int
    handshake_timeout_s: float
    frame_bytes: int
    buffered_bytes: int
    held_bytes: int
    """Unread output and unfinished frames of all connections together."""
    links: int
    trust_forwarded_for: bool = False
    """The address is the last one that a proxy in front of us names."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer to a plain request."""

    status: int
    body: bytes
    content_type: str = "application/json"


class Hooks:
    """What the owner of a listener decides; every method has a harmless default."""

    async def serve(self, stream: "Stream") -> None:
        """Serve one accepted WebSocket until it ends."""

    async def answer(self, path: str) -> Answer:
        """Answer a GET."""
        return Answer(404, b"{}\n")

    def refuse_s(self, address: str) -> int:
        """For how many seconds nothing is accepted from `address`; 0 accepts."""
        return 0

    def misbehaved(self, address: str) -> None:
        """A connection from `address` sent too much or took too long before it was vouched for."""

    def cut(self) -> None:
        """A connection was ended because too much was held for it."""

    def refused(self) -> None:
        """A connection was not accepted, because there are too many or its address has to wait."""


class Stream:
    """One accepted WebSocket. Writing never waits; each turn of the loop writes once."""

    __slots__ = ("_closing", "_connection", "_frames", "_listener", "_size", "_socket", "_transport", "address", "host")

    def __init__(
        self,
        listener: "Listener",
        connection: "Connection",
        transport: asyncio.Transport,
        websocket: "web.WebSocketResponse[Any]",
        address: str,
        host: str,
    ) -> None:
        self._listener = listener
        self._connection = connection
        self._transport = transport
        self._socket = websocket
        self._closing = False
        self._frames: list[bytes] = []
        self._size = 0
        self.address = address
        self.host = host
        """The Host header: a claim of the client."""

    @property
    def is_unix(self) -> bool:
        """Whether it came over the Unix socket."""
        return self._connection.address == UNIX_ADDRESS

    async def receive(self) -> bytes | None:
        """The next text frame, or None when the connection has ended or sent anything else."""
        message = await self._socket.receive()
        self._connection.unread = 0
        if message.type is not WSMsgType.TEXT:
            return None
        data: bytes = message.data
        return data

    def vouch(self) -> None:
        """The handshake is complete: the limits of strangers end."""
        self._connection.trusted = True
        self._listener.left(self._connection)

    def extend(self, timeout_s: float, *, any_size: bool = False) -> None:
        """A stranger did something sensible: it may send as much again, or frames of any size, for a while longer."""
        self._connection.extend(timeout_s, any_size)

    def write(self, frame: bytes) -> None:
        """Write one frame; a reader that leaves too much unread is cut off."""
        if self._closing or self._transport.is_closing():
            return
        if not self._frames:
            asyncio.get_running_loop().call_soon(self._flush)
        self._frames.append(text_frame(frame))
        self._size += len(frame)
        if self.buffered() > self._listener.limits.buffered_bytes:
            self.cut()

    def cut(self) -> None:
        """End it now: whatever was written and not sent, or received and not read, is gone."""
        self._closing = True
        self._transport.abort()
        self._listener.hooks.cut()

    def held(self) -> int:
        """Bytes that are kept for this connection, in either direction."""
        return self.buffered() + self._connection.unread

    def buffered(self) -> int:
        """Bytes that the far side has not taken yet."""
        return self._size + self._transport.get_write_buffer_size()

    def close(self, code: CloseCode) -> None:
        """Close after what was written; the far side has two seconds to read it."""
        if self._closing:
            return
        self._closing = True
        self._flush()
        if not self._transport.is_closing():
            self._transport.write(close_frame(code))
            asyncio.get_running_loop().call_later(CLOSE_GRACE_S, self._transport.abort)

    def hang_up(self) -> None:
        """Close now that nothing more is expected."""
        self.close(NORMAL)
        self._transport.close()

    def _flush(self) -> None:
        """Write at once what this turn of the loop has brought: a write for each frame costs more than making it."""
        frames, self._frames, self._size = self._frames, [], 0
        if frames and not self._transport.is_closing():
            self._transport.write(b"".join(frames) if len(frames) > 1 else frames[0])


class Connection(RequestHandler):
    """One TCP or Unix connection: what it may send is counted until somebody vouches for it."""

    __slots__ = ("_listener", "_received", "address", "deadline", "trusted", "unread")

    def __init__(self, listener: "Listener", server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop=loop, access_log=None, logger=_silent_logger(), keepalive_timeout=10.0)  # type: ignore[arg-type]
        self._listener = listener
        self._received = 0
        self.address = ""
        self.deadline = 0.0
        self.trusted = False
        self.unread = 0
        """Bytes that came since a frame was taken: a frame may never be finished."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peername = transport.get_extra_info("peername")
        self.address = source_of(peername[0]) if isinstance(peername, tuple) else UNIX_ADDRESS
        if not self._listener.arrived(self):
            self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._listener.ended(self)

    def data_received(self, data: bytes) -> None:
        self.unread += len(data)
        if not self.trusted:
            self._received += len(data)
            if self._received > self._listener.limits.unauthenticated_bytes:
                self._listener.hooks.misbehaved(self.address)
                self.abort()
                return
        super().data_received(data)

    def extend(self, timeout_s: float, any_size: bool) -> None:
        """Start counting anew."""
        self._received = 0
        self.trusted = any_size
        self.deadline = self._loop.time() + timeout_s

    def abort(self) -> None:
        """Drop the connection."""
        if self.transport is not None:
            self.transport.abort()


class Listener:
    """Listens, and keeps strangers within their limits."""

    def __init__(self, hooks: Hooks, limits: ListenerLimits) -> None:
        self.hooks = hooks
        self.limits = limits
        self._loop = asyncio.get_running_loop()
        self._server = web.Server(self._handle)
        self._sockets: list[asyncio.Server] = []
        self._connections = 0
        self._half_open: dict[Connection, None] = {}
        self._streams: set[Stream] = set()
        self._by_address: Counter[str] = Counter()
        self._unix: Path | None = None

    @property
    def half_open(self) -> int:
        """Connections that nobody vouches for."""
        return len(self._half_open)

    async def listen(self, host: str, port: int) -> int:
        """Listen on TCP; returns the port that was bound, or raises `UsageError`."""
        try:
            server = await self._loop.create_server(self._connection, host, port, backlog=ACCEPT_BACKLOG)
        except OSError as error:
            raise UsageError("usage", f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        self._sockets.append(server)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    async def listen_unix(self, path: Path) -> None:
        """Listen on a Unix socket (mode 0600); a socket that nobody serves any more is replaced.

        Raises:
            UsageError: Somebody serves it, or the path cannot be used.
        """
        listening = bound_socket(path)
        server = await self._loop.create_unix_server(self._connection, sock=listening, backlog=ACCEPT_BACKLOG)
        self._sockets.append(server)
        self._unix = path

    def stop_accepting(self) -> None:
        """No further connection is accepted."""
        for server in self._sockets:
            server.close()
        if self._unix is not None:
            self._unix.unlink(missing_ok=True)
            self._unix = None

    async def close(self, timeout_s: float) -> None:
        """Wait for connections to end, and drop those that do not in time."""
        self.stop_accepting()
        await self._server.shutdown(timeout_s)

    def sweep(self) -> None:
        """Once a second: drop strangers that are late, and whoever makes us hold too much."""
        for stream in largest({stream: stream.held() for stream in self._streams}, self.limits.held_bytes):
            stream.cut()
        now = self._loop.time()
        for connection in [one for one in self._half_open if now >= one.deadline]:
            self.hooks.misbehaved(connection.address)
            connection.abort()
            self.left(connection)

    def arrived(self, connection: Connection) -> bool:
        """A connection was made; returns whether it may stay."""
        connection.deadline = self._loop.time() + self.limits.handshake_timeout_s
        one_of_many = connection.address == UNIX_ADDRESS or self.limits.trust_forwarded_for
        crowded = not one_of_many and self._by_address[connection.address] >= self.limits.half_open_per_address
        full = self._connections >= self.limits.links or len(self._half_open) >= self.limits.half_open
        self._connections += 1
        if crowded or full:
            self.hooks.refused()
            return False
        self._half_open[connection] = None
        self._by_address[connection.address] += 1
        return True

    def ended(self, connection: Connection) -> None:
        """A connection has ended."""
        self._connections -= 1
        self.left(connection)

    def left(self, connection: Connection) -> None:
        """A connection is a stranger's no more."""
        if connection in self._half_open:
            del self._half_open[connection]
            self._by_address[connection.address] -= 1
            if not self._by_address[connection.address]:
                del self._by_address[connection.address]

    def _connection(self) -> Connection:
        return Connection(self, self._server, self._loop)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path != PATH:
            return await self._answer(request)
        connection = request.protocol
        address = self._address(request)
        wait_s = self.hooks.refuse_s(address)
        transport = request.transport
        if wait_s or transport is None or not isinstance(connection, Connection):
            self.hooks.refused()
            return _plain(Answer(429, b"{}\n"), {"Retry-After": str(wait_s)})
        websocket = web.WebSocketResponse(
            compress=False,
            decode_text=False,
            max_msg_size=self.limits.frame_bytes + _MARGIN_BYTES,
            timeout=CLOSE_GRACE_S,
        )
        try:
            await websocket.prepare(request)
        except web.HTTPException as refusal:
            return _plain(Answer(refusal.status, b"{}\n"))
        stream = Stream(self, connection, transport, websocket, address, request.headers.get("Host", ""))
        self._streams.add(stream)
        try:
            await self.hooks.serve(stream)
        finally:
            self._streams.discard(stream)
            stream.hang_up()
        return websocket

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            return _plain(Answer(405, b"{}\n"))
        return _plain(await self.hooks.answer(request.path))

    def _address(self, request: web.BaseRequest) -> str:
        if self.limits.trust_forwarded_for:
            forwarded = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
            if forwarded:
                return source_of(forwarded)
        connection = request.protocol
        return connection.address if isinstance(connection, Connection) else ""


def _plain(answer: Answer, headers: dict[str, str] | None = None) -> web.Response:
    response = web.Response(
        status=answer.status, body=answer.body, headers={"Content-Type": answer.content_type, **(headers or {})}
    )
    response.force_close()  # a plain connection is a stranger's: it does not stay
    return response


def _silent_logger() -> logging.Logger:
    """The HTTP library quotes what strangers send; none of that is for a log."""
    logger = logging.Logger("claudemesh.transport")
    logger.addHandler(logging.NullHandler())
    return logger
