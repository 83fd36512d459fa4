"""A TCP relay that keeps what passes: the wire between peers and a broker, as somebody on the network has it.

Clients mask their WebSocket frames with a key that stands beside them, so a recording is read frame by frame
before it is searched.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

_HEADERS_END: Final = b"\r\n\r\n"
_CHUNK_BYTES: Final = 1 << 16


@dataclass
class Recording:
    """One connection: both directions, as they passed."""

    to_broker: bytearray = field(default_factory=bytearray)
    to_peer: bytearray = field(default_factory=bytearray)

    @property
    def request_head(self) -> bytes:
        """The HTTP request line and headers."""
        return bytes(self.to_broker.partition(_HEADERS_END)[0])

    @property
    def response_head(self) -> bytes:
        return bytes(self.to_peer.partition(_HEADERS_END)[0])

    def from_peer(self) -> list[bytes]:
        """The payloads of the frames that the peer sent."""
        return list(read_frames(bytes(self.to_broker.partition(_HEADERS_END)[2])))

    def from_broker(self) -> list[bytes]:
        """The payloads of the frames that the broker sent."""
        return list(read_frames(bytes(self.to_peer.partition(_HEADERS_END)[2])))

    def messages(self) -> list[tuple[str, dict[str, Any]]]:
        """Every JSON frame with who sent it: `peer` or `broker`, the peer's first."""
        sides = [("peer", self.from_peer()), ("broker", self.from_broker())]
        return [(side, json.loads(one)) for side, frames in sides for one in frames if one.startswith(b"{")]


class RecordingProxy:
    """`async with RecordingProxy.before("127.0.0.1", 7900) as proxy:` and dial `proxy.url`."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self.recordings: list[Recording] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    @classmethod
    @asynccontextmanager
    async def before(cls, host: str, port: int, listen_port: int = 0) -> "AsyncIterator[RecordingProxy]":
        """Relay to `host`:`port` from a loopback port of its own."""
        proxy = cls(host, port)
        server = await asyncio.start_server(proxy._relay, "127.0.0.1", listen_port)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()

    def everything(self) -> bytes:
        """All that passed, unmasked, with the heads of the HTTP requests."""
        parts = [part for one in self.recordings for part in (one.request_head, one.response_head)]
        frames = [frame for one in self.recordings for frame in one.from_peer() + one.from_broker()]
        return b"\n".join(parts + frames)

    def messages(self) -> list[tuple[str, dict[str, Any]]]:
        return [message for one in self.recordings for message in one.messages()]

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        recording = Recording()
        self.recordings.append(recording)
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.close()
            return
        with suppress(asyncio.CancelledError):  # at the end of a test, which wants no word about it
            await asyncio.gather(
                _copy(reader, upstream_writer, recording.to_broker), _copy(upstream_reader, writer, recording.to_peer)
            )


def read_frames(stream: bytes) -> list[bytes]:
    """The payloads of a stream of WebSocket frames (RFC 6455 §5.2), unmasked; an unfinished last one is left out."""
    payloads, at = [], 0
    while len(stream) >= at + 2:
        first, second = stream[at], stream[at + 1]
        assert not first & 0x70, "a compressed frame: the recording could not be searched"
        length, start = second & 0x7F, at + 2
        if length >= 126:
            width = 2 if length == 126 else 8
            length = int.from_bytes(stream[start : start + width], "big")
            start += width
        mask = stream[start : start + 4] if second & 0x80 else b""
        start += len(mask)
        payload = stream[start : start + length]
        if len(payload) < length:
            break
        payloads.append(_unmask(payload, mask) if mask else payload)
        at = start + length
    return payloads


def _unmask(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(_CHUNK_BYTES):
            kept += chunk
            writer.write(chunk)
            await writer.drain()
    with suppress(OSError):
        writer.close()
