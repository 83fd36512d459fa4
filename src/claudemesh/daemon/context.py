"""What operations act on."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from claudemesh.daemon.agents import Agents
from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.daemon.home import Home, Say
from claudemesh.daemon.ipc_server import Reply


@dataclass(frozen=True, slots=True)
class Context:
    """The daemon, as its operations see it."""

    config: ConfigDir
    home: Home
    start_local_broker: Callable[[], Awaitable[str]]
    """Starts the embedded broker unless it runs; its URL."""
    stop: Callable[[], None]
    agents: Agents


def say_to(reply: Reply) -> Say:
    """Progress of something that knows nothing of replies: it is told in order, and waits for nobody."""
    tasks: set[asyncio.Task[None]] = set()

    def say(text: str) -> None:
        task = asyncio.get_running_loop().create_task(reply.progress(text))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return say
