"""What other packages bring into the daemon's process: connections that they take over, and adapters of hosts.

The daemon knows them by name only; each is imported when it is first needed (docs/spec/ipc.md §2.1).
"""

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from claudemesh.daemon.agents import Agents, AgentSession
from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.daemon.home import Home
from claudemesh.daemon.ipc_server import Operation, Reply
from claudemesh.daemon.logs import log_defect
from claudemesh.daemon.schema.base import Answer
from claudemesh.errors import UsageError

Event = Callable[[dict[str, Any]], Awaitable[None]]
Attach = Callable[["Daemon", dict[str, Any], asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Serves one connection until it ends; cancelled when the daemon stops."""
Attend = Callable[["Daemon", AgentSession], Awaitable[None]]
"""Works for one agent's session of its host as long as that is open; cancelled then."""

STOP_WITHIN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Daemon:
    """The running daemon, as what is attached to it sees it."""

    config: ConfigDir
    home: Home
    agents: Agents
    operations: dict[str, Operation] = field(default_factory=dict)

    async def perform(self, op: str, args: dict[str, Any], on_event: Event | None = None) -> dict[str, Any]:
        """Perform an operation of docs/spec/ipc.md §5 in this process.

        Args:
            on_event: Gets each event of an operation that reports some, and the progress of the others is dropped.

        Raises:
            ClaudemeshError: As the operation says.
        """
        operation = self.operations.get(op)
        if operation is None:
            raise UsageError("usage", "the daemon does not know this operation")
        try:
            read = msgspec.convert(args, type=operation.args)
        except msgspec.ValidationError as error:
            raise UsageError("usage", str(error)) from error
        answer: dict[str, Any] = msgspec.to_builtins(await operation.run(read, _Telling(on_event)))
        return answer


class _Telling(Reply):
    """Hands events to a function instead of a connection."""

    def __init__(self, on_event: Event | None) -> None:
        self._on_event = on_event

    async def event(self, event: Answer) -> None:
        if self._on_event is not None:
            await self._on_event(msgspec.to_builtins(event))

    async def progress(self, text: str, done: int = 0, total: int = 0) -> None:
        """Nobody waits for it."""


class Adapters:
    """Runs the adapter of its host for each agent's session, where there is one."""

    def __init__(self, daemon: Daemon, names: Mapping[str, str]) -> None:
        self._daemon = daemon
        self._names = names
        self._tasks: dict[AgentSession, asyncio.Task[None]] = {}

    def begin(self, session: AgentSession) -> None:
        """A session was opened."""
        name = self._names.get(session.host)
        if name is not None and session not in self._tasks:
            task = self._tasks[session] = asyncio.create_task(self._attend(name, session))
            task.add_done_callback(lambda done: self._forget(session, done))

    async def end(self, session: AgentSession) -> None:
        """A session was closed."""
        task = self._tasks.pop(session, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait({task}, timeout=STOP_WITHIN_S)

    def _forget(self, session: AgentSession, task: asyncio.Task[None]) -> None:
        if self._tasks.get(session) is task:
            del self._tasks[session]

    async def _attend(self, name: str, session: AgentSession) -> None:
        try:
            attend: Attend = await load(name)
            await attend(self._daemon, session)
        except Exception as error:  # noqa: BLE001 - isolates one session's adapter; its hooks still work
            log_defect("adapter", error)


async def load(name: str) -> Any:
    """What `module:attribute` names; imported beside the loop, since a large library takes longer than a hook waits."""
    module, attribute = name.split(":")
    return getattr(await asyncio.to_thread(importlib.import_module, module), attribute)
