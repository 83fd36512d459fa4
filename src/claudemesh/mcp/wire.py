"""One connection as the streams that the SDK serves: a JSON object per line, both ways (docs/mcp.md §1).

The SDK's own transport owns the process's standard streams; here one process serves many sessions. And lines of our
own are caught: the process at the host's end says what became of an answer, which is the evidence on which a message
counts as offered or read.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import RequestId, jsonrpc_message_adapter

from claudemesh.daemon.logs import log_event
from claudemesh.errors import ClaudemeshError
from claudemesh.mcp.pump import SENT, UNSENT, WRITTEN

MAX_LINE_BYTES: Final = 16 << 20
"""The largest message is 512 KiB of text, of which JSON may write each byte with six."""
_CHUNK: Final = 1 << 16
_OURS: Final = tuple(
    json.dumps({"jsonrpc": "2.0", "method": one, "params": {}}).removesuffix("}}").encode()
    for one in (SENT, UNSENT, WRITTEN)
)
"""How lines of ours begin, to the letter: what a host, or a client behind one, writes of such names is a request."""

Action = Callable[[], Awaitable[None]]
Incoming = SessionMessage | Exception


class Fate(NamedTuple):
    """What to do as soon as something is known of an answer; nothing, if nothing ever is."""

    written: Action
    """The host has it."""
    sent: Action | None = None
    """It has left for the host; what became of it then is not known yet."""
    unsent: Action | None = None
    """Nobody was there to take it."""


class Wire:
    """The lines of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._fates: dict[RequestId, Fate] = {}

    def when_known(self, request: RequestId, fate: Fate) -> None:
        """Do something once it is known what became of the answer to a request."""
        self._fates[request] = fate

    @asynccontextmanager
    async def streams(
        self,
    ) -> AsyncIterator[tuple[MemoryObjectReceiveStream[Incoming], MemoryObjectSendStream[SessionMessage]]]:
        """The streams to serve, for as long as the block lasts; the first one ends when the host hangs up."""
        incoming_send, incoming = anyio.create_memory_object_stream[Incoming](0)
        outgoing, outgoing_receive = anyio.create_memory_object_stream[SessionMessage](0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read, incoming_send)
            tasks.start_soon(self._write, outgoing_receive)
            yield incoming, outgoing
            tasks.cancel_scope.cancel()

    async def _read(self, incoming: MemoryObjectSendStream[Incoming]) -> None:
        async with incoming:
            with suppress(ConnectionError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                async for line in self._lines():
                    if line.startswith(_OURS):
                        await self._learn(line)
                    else:
                        await incoming.send(_message(line))

    async def _lines(self) -> AsyncIterator[bytes]:
        """Whole lines; the connection ends at one that is too long."""
        held = bytearray()
        while chunk := await self._reader.read(_CHUNK):
            held += chunk
            if b"\n" in chunk:
                *lines, rest = bytes(held).split(b"\n")
                held = bytearray(rest)
                for line in lines:
                    if line.strip():
                        yield line
            elif len(held) > MAX_LINE_BYTES:
                return

    async def _write(self, outgoing: MemoryObjectReceiveStream[SessionMessage]) -> None:
        async with outgoing:
            with suppress(ConnectionError):
                async for one in outgoing:
                    body = one.message.model_dump_json(by_alias=True, exclude_unset=True)
                    self._writer.write(body.encode("utf-8", "replace") + b"\n")
                    await self._writer.drain()

    async def _learn(self, line: bytes) -> None:
        told = json.loads(line)
        request, method = told["params"]["id"], told["method"]
        fate = self._fates.get(request) if method == SENT else self._fates.pop(request, None)
        if fate is None:
            return
        action = {SENT: fate.sent, UNSENT: fate.unsent, WRITTEN: fate.written}[method]
        try:
            if action is not None:
                await action()
        except ClaudemeshError as error:
            log_event("mcp_confirm_failed", code=error.code)


def _message(line: bytes) -> Incoming:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        return error
