"""A session that counts as busy and is not: some hosts tell no hook of a turn that its user stopped, or that failed."""

import asyncio
from pathlib import Path

from claudemesh.daemon.agents import AgentSession
from claudemesh.hosts.records import find_rest


async def note_idle(session: AgentSession, record: str, process: str) -> None:
    """Have a busy session count as idle where its host has noted that it waits for its user.

    Args:
        record: The file that the host named; empty when it named none.
        process: The host's, in digits; empty when it is not known.
    """
    if session.status != "busy" or not record:
        return
    number = int(process) if process.isdigit() else 0
    rest = await asyncio.to_thread(find_rest, session.host, Path(record), session.key, number)
    if rest is None or rest.since <= session.status_at:  # of the time before its present turn
        return
    if rest.is_final:
        await session.set_reach("turn")
    await session.set_status("idle")
