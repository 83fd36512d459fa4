"""The daemon's end of the local protocol: one task per connection, one operation at a time (docs/spec/ipc.md §2)."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from claudemesh import __version__
from claudemesh.daemon.config_dir import PRIVATE_FILE, clear_socket_place
from claudemesh.daemon.ipc import LENGTH, MAX_FRAME_BYTES, VERSION, check_length, error_object, peer_uid
from claudemesh.daemon.logs import log_defect, log_event
from claudemesh.daemon.schema.base import Answer, Args
from claudemesh.errors import ClaudemeshError, LocalError, UsageError

MAX_CONNECTIONS: Final = 256
WRITE_TIMEOUT_S: Final = 30.0
"""A reader that takes nothing for this long is dropped, so that it cannot hold messages in memory."""
ANSWER_BYTES: Final = MAX_FRAME_BYTES - 64
"""The largest answer that one frame holds."""
PART_CHARACTERS: Final = 500_000
STOP_WITHIN_S: Final = 2.0
"""How long what took over a connection may take to end when the daemon stops."""
_ANY_VERSION: Final = frozenset({"daemon.status", "daemon.stop"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One verb. A following one lasts until the other end hangs up; any other is finished even then."""

    args: type[Args]
    run: Callable[[Any, "Reply"], Awaitable[Answer]]
    follows: bool = False
    unheard: Callable[[Any, Any], Awaitable[None]] | None = None
    """Undoes, with the arguments and the answer, what nobody was there to hear of."""


Attached = Callable[[dict[str, Any], asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Takes over a connection after its request, until it ends."""


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    v: int
    op: str
    version: str = ""
    args: msgspec.Raw = msgspec.Raw(b"{}")


class Reply:
    """What an operation may say before it is finished."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def event(self, event: Answer) -> None:
        """Report one event; waits while the reader is slow.

        Raises:
            ConnectionError: Nobody reads any more.
        """
        await self.write({"event": event})

    async def progress(self, text: str, done: int = 0, total: int = 0) -> None:
        """Say what takes time. Nothing happens when nobody reads any more."""
        with contextlib.suppress(ConnectionError):
            await self.write({"progress": {"text": text, "done": done, "total": total}})

    async def answer(self, answer: Answer) -> None:
        """Write the answer: in parts, when it is larger than a frame."""
        body = msgspec.json.encode(answer)
        if len(body) <= ANSWER_BYTES:
            await self._write(b'{"ok":' + body + b"}")
            return
        text = body.decode()
        for begin in range(0, len(text), PART_CHARACTERS):
            await self.write({"part": text[begin : begin + PART_CHARACTERS]})
        await self.write({"ok": None})

    async def write(self, frame: dict[str, Any]) -> None:
        """Write one frame."""
        await self._write(msgspec.json.encode(frame))

    async def _write(self, body: bytes) -> None:
        self._writer.write(LENGTH.pack(check_length(len(body))) + body)
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._writer.drain()
        except TimeoutError as error:
            self._writer.transport.abort()
            raise ConnectionError("the reader stopped reading") from error


class IpcServer:
    """Serves operations on a Unix socket that only this user can use. The caller holds the directory's lock."""

    def __init__(
        self, path: Path, operations: Mapping[str, Operation], attachments: Mapping[str, Attached] | None = None
    ) -> None:
        self._path = path
        self._operations = operations
        self._attachments = attachments or {}
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._operations_running: dict[asyncio.Future[Answer], bool] = {}

    async def start(self) -> None:
        """Listen, in place of any socket that a daemon left behind."""
        clear_socket_place(self._path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        previous = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(previous)
        self._path.chmod(PRIVATE_FILE)
        self._server = await asyncio.start_unix_server(self._connected, sock=listener)

    async def stop(self) -> None:
        """Take no more requests, end followers, and finish the operations that run."""
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)
        for task, follows in self._operations_running.items():
            if follows:
                task.cancel()
        await asyncio.gather(*self._operations_running, return_exceptions=True)

    async def hang_up(self) -> None:
        """Close the connections: for those that wait for it, the daemon has ended."""
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=STOP_WITHIN_S)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if self._is_ours(writer):
                await self._converse(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, LocalError):
            pass  # hung up, a frame that is too large, or the daemon stops
        except Exception as error:  # noqa: BLE001 - one connection must not end the daemon
            log_defect("connection", error)
        finally:
            self._connections.discard(task)
            writer.close()

    def _is_ours(self, writer: asyncio.StreamWriter) -> bool:
        connection = writer.get_extra_info("socket")
        uid = peer_uid(connection)
        if uid is not None and uid != os.getuid():
            log_event("foreign_user_refused")
            return False
        if len(self._connections) > MAX_CONNECTIONS:
            log_event("too_many_connections", count=len(self._connections))
            return False
        return True

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reply, pending = Reply(writer), asyncio.create_task(_read_frame(reader))
        try:
            while True:
                body = await pending
                attached = self._attachment(body)
                if attached is not None:
                    await self._attach(body, attached, reader, writer)
                    return
                pending = asyncio.create_task(_read_frame(reader))
                await self._answer(body, reply, pending)
        finally:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)

    def _attachment(self, body: bytes) -> Attached | None:
        """What takes over the connection; None for an operation, and for what is not a request."""
        try:
            return self._attachments.get(_request(body).op)
        except UsageError:
            return None

    async def _attach(
        self, body: bytes, attached: Attached, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer, and hand the connection over; what its client has sent after the request is in the reader."""
        request = _request(body)
        try:
            _check_version(request)
            args = msgspec.json.decode(request.args, type=dict[str, Any])
        except ClaudemeshError as error:
            await Reply(writer).write({"error": error_object(error)})
            return
        except (msgspec.DecodeError, RecursionError) as error:
            await Reply(writer).write({"error": error_object(UsageError("usage", str(error)))})
            return
        await Reply(writer).write({"ok": {}})
        await attached(args, reader, writer)

    async def _answer(self, body: bytes, reply: Reply, hang_up: asyncio.Task[bytes]) -> None:
        op = "?"
        try:
            request = _request(body)
            op = request.op
            _check_version(request)
            operation = self._operations.get(op)
            if operation is None:
                raise UsageError("usage", "the daemon does not know this operation")
            args = _arguments(request.args, operation.args)
            answer = await self._perform(operation, args, reply, hang_up)
        except ClaudemeshError as error:
            log_event("op_failed", op=op, code=error.code)
            await reply.write({"error": error_object(error)})
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - one operation must not end the daemon
            log_defect(op, error)
            await reply.write({"error": error_object(LocalError("internal", f"{op}: {type(error).__name__}"))})
        else:
            await self._tell(operation, args, answer, reply, hang_up)

    async def _tell(
        self, operation: Operation, args: Args, answer: Answer, reply: Reply, hang_up: asyncio.Task[bytes]
    ) -> None:
        """Write the answer; where nobody is there to hear it, undo what that asks for."""
        try:
            if operation.unheard is not None and hang_up.done() and hang_up.exception() is not None:
                raise ConnectionError("the caller hung up")
            await reply.answer(answer)
        except ConnectionError:
            if operation.unheard is not None:
                await operation.unheard(args, answer)
            raise

    async def _perform(self, operation: Operation, args: Args, reply: Reply, hang_up: asyncio.Task[bytes]) -> Answer:
        """Run an operation; a follower ends when the other end hangs up, any other when it is finished."""
        task = asyncio.ensure_future(operation.run(args, reply))
        self._operations_running[task] = operation.follows
        task.add_done_callback(self._operations_running.pop)
        if not operation.follows:
            return await asyncio.shield(task)
        try:
            await asyncio.wait({task, hang_up}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ConnectionError("the follower hung up")
            return await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    return await reader.readexactly(check_length(length))


def _request(body: bytes) -> _Request:
    try:
        return msgspec.json.decode(body, type=_Request)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError("usage", f"the request is not one of ours: {error}") from error


def _check_version(request: _Request) -> None:
    if request.op in _ANY_VERSION or (request.v == VERSION and request.version == __version__):
        return
    asked = "".join(one for one in request.version[:20] if one.isalnum() or one in ".+-")
    raise LocalError("daemon_version", f"the daemon is {__version__}, the command {asked or 'unknown'}")


def _arguments(raw: msgspec.Raw, kind: type[Args]) -> Args:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError("usage", str(error)) from error
