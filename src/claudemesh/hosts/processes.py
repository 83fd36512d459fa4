"""The process of a host: found from the hook that it started, watched so that a killed session leaves presence."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from claudemesh.daemon.agents import AgentSession
from claudemesh.hosts.seen import forget, remembered

if TYPE_CHECKING:
    from claudemesh.daemon.attaching import Daemon

LOOK_EVERY_S: Final = 2.0
_SHELLS: Final = frozenset({"sh", "bash", "dash", "zsh", "ash"})
_GENERATIONS: Final = 4


async def attend(daemon: "Daemon", session: AgentSession) -> None:
    """End a session once its host's process is gone: it could not say so."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        known = await asyncio.to_thread(remembered, daemon.config, session.host, session.key)
        await close_if_gone(daemon, session, known)


async def close_if_gone(daemon: "Daemon", session: AgentSession, known: dict[str, str]) -> None:
    """End a session whose process, as its hooks told of it, has ended; the caller is cancelled then."""
    pid = known.get("process", "")
    if pid.isdigit() and int(pid) and not is_alive(int(pid)):
        forget(daemon.config, session.host, session.key)
        closing = daemon.agents.close(session)  # cancels the adapter, which is us
        await asyncio.shield(asyncio.ensure_future(closing))


def is_alive(pid: int) -> bool:
    """Whether a process runs."""
    if os.name == "nt":  # there, signal 0 would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def host_process(pid: int) -> int:
    """The host, from the parent of a hook's process: the same, or above the shell that ran the hook; 0 if unknown."""
    for _ in range(_GENERATIONS):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return 0
        name, rest = stat.partition("(")[2].rsplit(")", 1)
        if name not in _SHELLS:
            return pid
        pid = int(rest.split()[1])
    return 0
