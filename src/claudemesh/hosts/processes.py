"""The process of a host: found from the hook that it started, watched so that a killed session leaves presence.

While it runs, what it was shown is looked for in its record of the conversation, and the end of a turn in what it has
noted: no hook tells when a model answers, nor when its user stops it.
"""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from claudemesh.daemon.agents import AgentSession
from claudemesh.daemon.logs import log_event
from claudemesh.errors import ClaudemeshError
from claudemesh.hosts.idleness import note_idle
from claudemesh.hosts.seen import forget, remembered
from claudemesh.hosts.settling import settle_by_record

if TYPE_CHECKING:
    from claudemesh.daemon.attaching import Daemon

LOOK_EVERY_S: Final = 2.0
_SHELLS: Final = frozenset({"sh", "bash", "dash", "zsh", "ash"})
_GENERATIONS: Final = 4


async def attend(daemon: "Daemon", session: AgentSession) -> None:
    """See in its record what a session has read, and end it once its host's process is gone: it could not say so."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        known = await asyncio.to_thread(remembered, daemon.config, session.host, session.key)
        is_gone = _is_gone(known)
        record = known.get("transcript", "")
        try:
            await settle_by_record(session, session.host, record)
            await note_idle(session, record, known.get("process", ""))
        except ClaudemeshError as error:  # a full disk, say; what it was shown stays open until it can be stored
            log_event("hook_failed", code=error.code)
        if is_gone:
            forget(daemon.config, session.host, session.key)
            closing = daemon.agents.close(session)  # cancels the adapter, which is us
            await asyncio.shield(asyncio.ensure_future(closing))


def _is_gone(known: dict[str, str]) -> bool:
    """Whether a session's process, as its hooks told of it, has ended."""
    pid = known.get("process", "")
    return pid.isdigit() and int(pid) > 0 and not is_alive(int(pid))


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
