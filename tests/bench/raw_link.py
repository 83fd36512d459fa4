"""A WebSocket client that costs a load generator as little as possible (RFC 6455, client side).

The generator shares two cores with what it measures. So frames are built before the clock starts and
masked with the zero key, which every server unmasks like any other; what arrives goes to one callback.
"""

import asyncio
import base64
import os
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

_TEXT: Final = 0x81
_PONG: Final = 0x8A
_CLOSE_OPCODE: Final = 0x8
_PING_OPCODE: Final = 0x9
_MASKED: Final = 0x80
_ZERO_MASK: Final = b"\0\0\0\0"


def client_frame(payload: bytes, first: int = _TEXT) -> bytes:
    """One client frame, masked with the zero key."""
    length = len(payload)
    if length < 126:
        return b"%c%c%b%b" % (first, _MASKED | length, _ZERO_MASK, payload)
    if length < 1 << 16:
        return b"%c\xfe%b%b%b" % (first, length.to_bytes(2, "big"), _ZERO_MASK, payload)
    return b"%c\xff%b%b%b" % (first, length.to_bytes(8, "big"), _ZERO_MASK, payload)


class RawLink(asyncio.Protocol):
    """One link: `write` sends built frames, `on_frames` gets the text frames of each read."""

    def __init__(self, host: str, on_frames: Callable[[list[bytes]], None]) -> None:
        self.on_frames = on_frames
        self.lost: BaseException | None = None
        self._host = host
        self._buffer = b""
        self._upgraded = False
        self._transport: Any = None
        self.write: Callable[[bytes], None] = lambda _: None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.write = transport.write
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET /ws HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        transport.write(f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())

    def connection_lost(self, exc: Exception | None) -> None:
        if self.lost is None:
            self.lost = exc or ConnectionResetError("the server closed the link")

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        if not self._upgraded:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                self._fail(data[:end])
                return
            self._upgraded = True
            data = data[end + 4 :]
        frames = self._split(data)
        if frames:
            self.on_frames(frames)

    def close(self) -> None:
        """End the link without a closing handshake."""
        self.lost = self.lost or ConnectionAbortedError("closed by the generator")
        if self._transport is not None:
            self._transport.abort()

    def _split(self, data: bytes) -> list[bytes]:
        """The whole text frames in `data`; what is left over waits for the next read."""
        frames: list[bytes] = []
        at, size = 0, len(data)
        while size - at >= 2:
            length, start = data[at + 1], at + 2
            if length == 126:
                start += 2
                length = int.from_bytes(data[at + 2 : start], "big")
            elif length == 127:
                start += 8
                length = int.from_bytes(data[at + 2 : start], "big")
            if size < start or size < start + length:
                break
            if data[at] == _TEXT:
                frames.append(data[start : start + length])
            else:
                self._control(data[at] & 0x0F, data[start : start + length])
            at = start + length
        self._buffer = data[at:]
        return frames

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING_OPCODE:
            self.write(client_frame(payload, _PONG))
        elif opcode == _CLOSE_OPCODE:
            self._fail(payload)

    def _fail(self, reason: bytes) -> None:
        self.lost = ConnectionResetError(f"the server ended the link: {reason[:120]!r}")
        self._transport.abort()


async def dial(url: str, on_frames: Callable[[list[bytes]], None]) -> RawLink:
    """Connect to `ws://HOST:PORT/ws`; the upgrade's answer arrives later, before the first frame."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(lambda: RawLink(parts.netloc, on_frames), parts.hostname, parts.port)
    return link
