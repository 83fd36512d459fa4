"""Every operation of the local API by name, and what they share (docs/spec/ipc.md §5)."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from claudemesh import __version__
from claudemesh.daemon.config_dir import ConfigDir, read_json
from claudemesh.daemon.home import Home
from claudemesh.daemon.ipc_server import Operation, Reply
from claudemesh.daemon.schema import base, meshes


@dataclass(frozen=True, slots=True)
class Daemon:
    """What operations act on."""

    config: ConfigDir
    home: Home
    start_local_broker: Callable[[], Awaitable[str]]
    """Starts the embedded broker unless it runs; its URL."""
    stop: Callable[[], None]


def operations(daemon: Daemon) -> dict[str, Operation]:
    """Every operation by its name on the socket."""
    lifecycle = Lifecycle(daemon)
    return {
        "daemon.status": Operation(base.NoArgs, lifecycle.status),
        "daemon.stop": Operation(base.NoArgs, lifecycle.stop),
    }


class Lifecycle:
    """The daemon itself."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def status(self, args: base.NoArgs, reply: Reply) -> meshes.DaemonStatus:
        """What runs here."""
        config = self._daemon.config
        return meshes.DaemonStatus(
            running=True,
            pid=os.getpid(),
            version=__version__,
            config_dir=str(config.path),
            socket=str(config.socket()),
            started_at=int(read_json(config.record).get("started_at", 0)),
            local_broker=str(read_json(config.local_broker).get("url", "")),
            meshes=[],
        )

    async def stop(self, args: base.NoArgs, reply: Reply) -> base.Done:
        """End the daemon once this is answered; the connection is closed last of all."""
        self._daemon.stop()
        return base.Done()
