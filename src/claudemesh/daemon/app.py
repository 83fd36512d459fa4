"""The daemon: composes the peers of one configuration directory, the embedded broker and the local API.

The only module that knows both a peer and a broker. docs/spec/ipc.md §4 has the order of starting and stopping.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from claudemesh import __version__
from claudemesh.daemon.agents import Agents
from claudemesh.daemon.attaching import Adapters, Attach, Daemon, load
from claudemesh.daemon.config_dir import ConfigDir, clear_socket_place, read_json, write_private
from claudemesh.daemon.context import Context
from claudemesh.daemon.home import Home
from claudemesh.daemon.ipc import Object, error_object
from claudemesh.daemon.ipc_server import Attached, IpcServer
from claudemesh.daemon.logs import log_defect, log_event, open_log
from claudemesh.daemon.operations import operations
from claudemesh.errors import ClaudemeshError, LocalError
from claudemesh.transport import run

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

Say = Callable[[Object], None]


def run_daemon(
    *, announce: bool, attachments: Mapping[str, str] | None = None, adapters: Mapping[str, str] | None = None
) -> int:
    """Run the daemon of `$CLAUDEMESH_CONFIG_DIR` until it is told to stop.

    Args:
        announce: Write one line to standard output when ready, or when it cannot start, then close it.
        attachments: What takes over a connection, by the operation that asks for it: `module:function`, imported at
            the first use (`attaching.Attach`).
        adapters: What works for each agent's session, by its host: likewise (`attaching.Attend`).

    Returns:
        The exit code.
    """
    os.umask(0o077)
    say = _announce if announce else _tell_terminal
    try:
        config = ConfigDir.of_environment()
        config.ensure()
        run(_serve(config, say, attachments or {}, adapters or {}))
    except ClaudemeshError as error:
        say({"error": error_object(error)})
        return error.exit_code
    except OSError as error:
        refused = LocalError("disk", f"{error.filename or 'the configuration directory'}: {error.strerror or error}")
        say({"error": error_object(refused)})
        return refused.exit_code
    return 0


async def _serve(config: ConfigDir, say: Say, attachments: Mapping[str, str], adapters: Mapping[str, str]) -> None:
    stopping = asyncio.Event()
    _stop_on_signals(stopping)
    async with contextlib.AsyncExitStack() as stack:
        # The lock first: from here on nobody else has this directory, and what a dead daemon left is ours to replace.
        home = await stack.enter_async_context(Home(config.path))
        stack.callback(open_log(config.log).close)
        broker = EmbeddedBroker(config, stopping.set)
        stack.push_async_callback(broker.close)
        await broker.resume()
        agents = Agents(home)
        await home.start()
        stack.push_async_callback(agents.close_all)
        performing = operations(Context(config, home, broker.start, stopping.set, agents))
        daemon = Daemon(config, home, agents, performing)
        working = Adapters(daemon, adapters)
        agents.on_open, agents.on_close = working.begin, working.end
        server = IpcServer(config.socket(), performing, _attachments(daemon, attachments))
        await server.start()
        stack.push_async_callback(server.hang_up)
        _record(config)
        log_event("started", pid=os.getpid(), version=__version__, count=len(home.peers))
        say({"ready": {"pid": os.getpid(), "version": __version__}})
        await stopping.wait()
        await server.stop()
        config.record.unlink(missing_ok=True)
        log_event("stopped", pid=os.getpid())


def _attachments(daemon: Daemon, names: Mapping[str, str]) -> dict[str, Attached]:
    def attached(name: str) -> Attached:
        async def serve(args: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            attach: Attach = await load(name)
            await attach(daemon, args, reader, writer)

        return serve

    return {op: attached(name) for op, name in names.items()}


class EmbeddedBroker:
    """The broker of `claudemesh up`: in this process, on a Unix socket, and up again after a restart."""

    def __init__(self, config: ConfigDir, give_up: Callable[[], None]) -> None:
        self._config = config
        self._give_up = give_up
        self._running: contextlib.AsyncExitStack | None = None

    async def resume(self) -> None:
        """Start it if `up` was ever used here."""
        recorded = read_json(self._config.local_broker).get("url")
        if isinstance(recorded, str) and recorded.startswith("unix://"):
            await self._open(Path(recorded.removeprefix("unix://")))

    async def start(self) -> str:
        """Start it, unless it runs, and remember it. Returns its URL."""
        url: object = read_json(self._config.local_broker).get("url")
        path = Path(url.removeprefix("unix://")) if isinstance(url, str) else self._config.broker_socket()
        if self._running is None:
            await self._open(path)
            write_private(self._config.local_broker, json.dumps({"url": f"unix://{path}"}).encode())
        return f"unix://{path}"

    async def close(self) -> None:
        """Stop it; what it accepted is in its database."""
        if self._running is not None:
            await self._running.aclose()
            self._running = None

    async def _keep(self, failure: Awaitable[None]) -> None:
        """End the daemon when the broker has failed: the next command starts both anew from what is durable."""
        try:
            await failure
        except Exception as error:  # noqa: BLE001 - whatever it is, the broker serves no more
            log_defect("local_broker", error)
            self._give_up()

    async def _open(self, path: Path) -> None:
        from claudemesh.broker.app import Broker
        from claudemesh.broker.config import Settings

        clear_socket_place(path)
        settings = Settings(
            unix=path,
            database=self._config.local_broker_database,
            log_file=self._config.local_broker_log,
            log_level="warning",
        )
        async with contextlib.AsyncExitStack() as stack:
            broker = await stack.enter_async_context(Broker(settings))
            keeper = asyncio.create_task(self._keep(broker.wait_failed()))
            stack.callback(keeper.cancel)
            self._running = stack.pop_all()
        log_event("local_broker_started")


def _stop_on_signals(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_unhandled)
    for number in _SIGNALS:
        try:
            loop.add_signal_handler(number, stopping.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stopping.set))


def _log_unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    log_defect("task", error if isinstance(error, BaseException) else RuntimeError("unhandled"))


def _record(config: ConfigDir) -> None:
    started_at = time.time_ns() // 1_000_000
    record = {"pid": os.getpid(), "version": __version__, "socket": str(config.socket()), "started_at": started_at}
    write_private(config.record, json.dumps(record).encode())


def _announce(message: Object) -> None:
    """One line for the command that started us; afterwards standard output leads nowhere."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(message).encode() + b"\n")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _tell_terminal(message: Object) -> None:
    error = message.get("error")
    if error is not None:
        sys.stderr.write(f"claudemesh: {error['code']}: {error['message']}\n")
