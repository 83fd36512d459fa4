"""One agent's attachment to the daemon, which is the MCP server; made again when the daemon was.

What `claudemesh.mcp.pump` is to a host's pipe this is to its HTTP requests, with the SDK's dispatcher in place of
lines: requests of many connections share it, so that each gets an id of its own here.
"""

import asyncio
import itertools
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup, TaskStatus
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.dispatcher import CallOptions, DispatchContext, OnNotify, ProgressFnT
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.transport_context import TransportContext
from mcp_types import CONNECTION_CLOSED, INVALID_PARAMS, METHOD_NOT_FOUND, RequestId

from claudemesh.daemon import launch
from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.daemon.ipc import AnsweredError, Client
from claudemesh.daemon.logs import log_defect, log_event
from claudemesh.errors import ClaudemeshError
from claudemesh.mcp.pump import LOST, OPERATION, POLL_S, REPLAYED, SENT, SERVER_ERROR, UNSENT, WRITTEN, lost_result
from claudemesh.mcp.wire import Wire

SUBSCRIBE, UNSUBSCRIBE = "resources/subscribe", "resources/unsubscribe"
SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"
MAX_SUBSCRIPTIONS: Final = 256
"""Of a session of the 2025 protocol, each with the address of one resource: it is kept, here and in the daemon."""
MAX_URI_CHARACTERS: Final = 1_000
FINISH_WITHIN_S: Final = 2.0
_BACKLOG: Final = 1_024

Told = tuple[str, dict[str, Any]]
"""A notification: method and parameters."""


class Link:
    """The way of one agent's session to the daemon.

    Args:
        client: Whose token opened it; nobody else uses it.
        arguments: As `options.attach_arguments` makes them.
        tell: Gets every notification that belongs to no request.
    """

    def __init__(
        self, config: ConfigDir, client: str, arguments: Mapping[str, Any], tasks: TaskGroup, tell: OnNotify
    ) -> None:
        self.client = client
        self.exchanges = 0
        """How many HTTP requests of it are being answered, open streams included."""
        self.idle_since = anyio.current_time()
        self.notifications = 0
        """How many of its client's were taken and are not read yet."""
        self._config = config
        self._arguments = dict(arguments)
        self._tasks = tasks
        self._tell = tell
        self._ids = itertools.count(1)
        self._sent: dict[RequestId, int] = {}
        """Answers that have left, by the client's own id of the request, while nothing was heard of it since."""
        self._replayed: dict[tuple[str, str], Mapping[str, Any] | None] = {}
        """Parameters by method and resource: each holds once, however often it was said."""
        self._streams: dict[int, MemoryObjectSendStream[Told]] = {}
        self._attaching = anyio.Lock()
        self._dispatcher: JSONRPCDispatcher[TransportContext] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()
        self._is_closed = False

    # Requests

    def next_id(self) -> int:
        """An id for a request to the daemon."""
        return next(self._ids)

    async def ask(
        self, request: int, method: str, params: Mapping[str, Any] | None, progress: ProgressFnT | None = None
    ) -> dict[str, Any]:
        """The daemon's result of one request.

        Raises:
            MCPError: Its error; or there is no daemon, which is told as a result where a model called a tool.
        """
        self._check_room(method, params)
        try:
            dispatcher = await self._attached()
            options: CallOptions = {"request_id": request, "cancel_on_abandon": method != "initialize"}
            if progress is not None:
                options["on_progress"] = progress
            result = await dispatcher.send_raw_request(method, params, options)
        except MCPError as error:
            if error.code != CONNECTION_CLOSED:
                raise
            if method == "tools/call":
                return lost_result()
            raise MCPError(SERVER_ERROR, LOST) from error
        self._remember(method, params)
        return result

    async def notify(self, method: str, params: Mapping[str, Any] | None) -> None:
        """Pass on what the client said."""
        await (await self._attached()).notify(method, params)
        self._remember(method, params)

    def _remember(self, method: str, params: Mapping[str, Any] | None) -> None:
        if method in REPLAYED:
            self._replayed[method, _uri(params)] = params
        elif method == UNSUBSCRIBE:
            self._replayed.pop((SUBSCRIBE, _uri(params)), None)

    def _check_room(self, method: str, params: Mapping[str, Any] | None) -> None:
        if method != SUBSCRIBE or (method, _uri(params)) in self._replayed:
            return
        if len(_uri(params)) > MAX_URI_CHARACTERS:
            raise MCPError(INVALID_PARAMS, "there is no such resource")
        if sum(one == SUBSCRIBE for one, _ in self._replayed) >= MAX_SUBSCRIPTIONS:
            raise MCPError(SERVER_ERROR, "too many resources are subscribed to: unsubscribe from one")

    def subscribe(self, request: int) -> MemoryObjectReceiveStream[Told]:
        """What the daemon will tell of a subscription of the 2026 protocol, which that request opens."""
        self._streams[request], told = anyio.create_memory_object_stream[Told](_BACKLOG)
        return told

    def unsubscribe(self, request: int) -> None:
        """Nobody listens any more."""
        stream = self._streams.pop(request, None)
        if stream is not None:
            stream.close()

    # Evidence (docs/mcp.md §7.3)

    def sent(self, asked: RequestId, request: int) -> None:
        """The answer has left for the client, who asked under the id `asked`."""
        self._sent[asked] = request
        self._say(SENT, request)

    def unsent(self, request: int) -> None:
        """The client was gone when the answer came."""
        self._say(UNSENT, request)

    def forget(self, asked: object) -> None:
        """The client does not want that answer: nothing is evidence that it was read."""
        if isinstance(asked, str | int):
            self._sent.pop(asked, None)

    def heard(self) -> None:
        """The client asks for something more: so it has what had left before, unless it is about to say otherwise."""
        if self.notifications:
            return
        for request in self._sent.values():
            self._say(WRITTEN, request)
        self._sent.clear()

    def _say(self, method: str, request: int) -> None:
        """A line of our own, in order before whatever is asked next."""
        if self._writer is not None:
            line = {"jsonrpc": "2.0", "method": method, "params": {"id": request}}
            self._writer.write(json.dumps(line).encode() + b"\n")

    # The daemon

    async def close(self) -> None:
        """The session is over; what was said before still arrives."""
        self._is_closed = True
        with anyio.move_on_after(FINISH_WITHIN_S, shield=True):
            if self._writer is not None:
                with suppress(OSError):
                    self._writer.write_eof()
                await self._ended.wait()
        self._scope.cancel()

    async def _attached(self, *, start: bool = True) -> JSONRPCDispatcher[TransportContext]:
        """A dispatcher to a daemon that runs, or is started.

        Raises:
            MCPError: There is none, and none can be started.
        """
        async with self._attaching:
            if self._dispatcher is None:
                try:
                    await self._attach(start)
                except AnsweredError as error:
                    raise MCPError(SERVER_ERROR, str(error.error.get("message"))) from error
                except (ClaudemeshError, OSError) as error:
                    raise MCPError(SERVER_ERROR, str(error)) from error
            if self._dispatcher is None:
                raise MCPError(SERVER_ERROR, LOST)
            return self._dispatcher

    async def _attach(self, start: bool) -> None:
        reach = launch.connect if start else launch.running
        client = await anyio.to_thread.run_sync(reach, self._config)
        if client is None:
            return
        reader, writer = await _streams(client, self._arguments)
        await self._tasks.start(self._serve, reader, writer)
        for (method, _), params in list(self._replayed.items()):
            dispatcher = self._dispatcher
            if dispatcher is None:
                return
            if method.startswith("notifications/"):
                await dispatcher.notify(method, params)
            else:
                await dispatcher.send_raw_request(method, params, {"request_id": self.next_id()})

    async def _serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        self._scope, self._ended = anyio.CancelScope(), anyio.Event()
        try:
            with self._scope:
                async with Wire(reader, writer).streams() as (incoming, outgoing):
                    dispatcher: JSONRPCDispatcher[TransportContext] = JSONRPCDispatcher(incoming, outgoing)
                    self._dispatcher, self._writer = dispatcher, writer
                    await dispatcher.run(_refuse, self._tell, self._intercept, task_status=task_status)
        except Exception as error:  # noqa: BLE001 - isolates one session
            log_defect("mcp.http.link", error)
        finally:
            self._dispatcher = self._writer = None
            self._ended.set()
            self._sent.clear()  # the next daemon does not know them
            for request in list(self._streams):
                self.unsubscribe(request)
            writer.close()
            if not self._is_closed:
                log_event("mcp_http_daemon_ended")
                self._tasks.start_soon(self._look_out)

    async def _look_out(self) -> None:
        """An idle session finds the daemon that somebody else starts; it starts none itself."""
        while self._dispatcher is None and not self._is_closed:
            await anyio.sleep(POLL_S)
            with suppress(MCPError):
                await self._attached(start=False)

    def _intercept(self, method: str, params: Mapping[str, Any] | None) -> bool:
        """Keep what belongs to a subscription in order, for whoever listens to it."""
        meta = (params or {}).get("_meta")
        subscription = meta.get(SUBSCRIPTION) if isinstance(meta, dict) else None
        stream = self._streams.get(subscription) if isinstance(subscription, int) else None
        if stream is None:
            return False
        try:
            stream.send_nowait((method, dict(params or {})))
        except anyio.WouldBlock:
            stream.close()  # a client that reads nothing listens anew
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        return True


async def _streams(client: Client, arguments: dict[str, Any]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    connected = await anyio.to_thread.run_sync(client.attach, OPERATION, arguments)
    connected.setblocking(False)
    return await asyncio.open_unix_connection(sock=connected)


def _uri(params: Mapping[str, Any] | None) -> str:
    """The resource that a request is about; empty for one that is about none."""
    return str((params or {}).get("uri", ""))


async def _refuse(_: DispatchContext[Any], method: str, __: Mapping[str, Any] | None) -> dict[str, Any]:
    """The daemon asks its hosts for nothing."""
    raise MCPError(METHOD_NOT_FOUND, "Method not found", method)
