"""Dials a broker: one WebSocket over TCP, TLS or a Unix socket (docs/spec/wire.md §2).

ws://host:port/ws      TCP
wss://host/ws          TLS
unix:///path.sock      the same WebSocket over a Unix socket, HTTP path /ws
"""

import asyncio
import contextlib
import ssl
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from claudemesh.errors import Unreachable, UsageError
from claudemesh.protocol import limits
from claudemesh.transport.frames import NORMAL, PATH, CloseCode

CONNECT_TIMEOUT_S: Final = 10.0
MAX_RECEIVED_BYTES: Final = 4 * limits.MAX_FRAME_BYTES
"""The largest frame a broker sends: a page of roster entries at their largest."""
_CLOSE_WAIT_S: Final = 2.0


class Pipe:
    """An open WebSocket. One task may receive while others send."""

    __slots__ = ("_session", "_socket")

    def __init__(self, session: aiohttp.ClientSession, socket: "aiohttp.ClientWebSocketResponse[Any]") -> None:
        self._session = session
        self._socket = socket

    async def send(self, frame: bytes) -> None:
        """Send one text frame, and wait while too much is unsent.

        Raises:
            Unreachable: `link_lost`; whether the far side got the frame is unknown.
        """
        try:
            await self._socket.send_frame(frame, aiohttp.WSMsgType.TEXT)
        except (aiohttp.ClientError, ConnectionError, RuntimeError) as error:
            raise Unreachable("link_lost") from error

    async def recv(self) -> bytes:
        """Receive one frame.

        Raises:
            Unreachable: `link_lost`; the far side or the network closed, or it sent no text frame.
        """
        try:
            message = await self._socket.receive()
        except (aiohttp.ClientError, ConnectionError, RuntimeError) as error:
            raise Unreachable("link_lost") from error
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise Unreachable("link_lost", f"closed with {self._socket.close_code}")
        data: bytes = message.data
        return data

    @property
    def close_code(self) -> CloseCode | None:
        """Why the link is closed, as the WebSocket says; None while it is open or when it broke."""
        code = self._socket.close_code
        return None if code is None else CloseCode(code)

    async def close(self, code: CloseCode = NORMAL) -> None:
        """Close the link; returns when nothing of it is left, at most two seconds later."""
        with contextlib.suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
            async with asyncio.timeout(_CLOSE_WAIT_S):
                await self._socket.close(code=code)
        await self._session.close()


async def connect(url: str, *, tls: ssl.SSLContext | None = None, timeout_s: float = CONNECT_TIMEOUT_S) -> Pipe:
    """Dial a broker.

    Args:
        url: `ws://`, `wss://` or `unix://`, at most 1,024 characters.
        tls: Whom to trust for `wss://`; None trusts the system's authorities.

    Raises:
        UsageError: The URL is of no known form; nothing was dialled.
        Unreachable: `broker_unreachable`, with the reason that the system gives.
    """
    address, connector = _locate(url, tls)
    session = aiohttp.ClientSession(connector=connector, trust_env=url.startswith("wss:"))
    try:
        async with asyncio.timeout(timeout_s):
            socket = await session.ws_connect(
                address,
                autoping=True,
                compress=0,
                max_msg_size=MAX_RECEIVED_BYTES,
                decode_text=False,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_WAIT_S),
            )
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        await session.close()
        raise Unreachable("broker_unreachable", _reason(error)) from error
    except BaseException:
        await session.close()
        raise
    return Pipe(session, socket)


def _locate(url: str, tls: ssl.SSLContext | None) -> tuple[str, aiohttp.BaseConnector]:
    """What to ask the HTTP client for, and the connector that reaches it."""
    parts = urlsplit(url) if len(url) <= 1_024 else urlsplit("")
    if parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc:
        if not hasattr(asyncio, "open_unix_connection"):
            raise UsageError("usage", "this platform has no Unix sockets")
        return f"http://localhost{PATH}", aiohttp.UnixConnector(path=url.removeprefix("unix://"))
    if parts.scheme == "ws" and parts.hostname:
        return url, aiohttp.TCPConnector(limit=1)
    if parts.scheme == "wss" and parts.hostname:
        return url, aiohttp.TCPConnector(limit=1, ssl=tls if tls is not None else True)
    raise UsageError("usage", "a broker's URL starts with wss://, ws:// or unix:///")


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"HTTP status {error.status}"
    return str(error)[:200] or type(error).__name__
