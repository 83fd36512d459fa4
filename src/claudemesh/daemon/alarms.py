"""What a peer notices against its broker, or against the safety of its keys, stands in the daemon's log as well."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from claudemesh.daemon.logs import log_event
from claudemesh.peer import Peer, events


@contextlib.asynccontextmanager
async def alarms_logged(peer: Peer) -> AsyncIterator[None]:
    """Write a peer's alarms down for as long as the block lasts."""
    watching = asyncio.create_task(_watch(peer))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(peer: Peer) -> None:
    async for event in peer.events():
        log_alarm(peer.mesh, event)


def log_alarm(mesh: str, event: events.Event) -> None:
    """One line for an event that is an alarm, nothing for any other."""
    match event:
        case events.Frozen(code=code):
            log_event("frozen", level=logging.WARNING, mesh=mesh, code=code)
        case events.AuditContradicted(code=code):
            log_event("audit_contradicted", level=logging.WARNING, mesh=mesh, code=code)
        case events.CloneSuspected(number=number):
            log_event("clone_suspected", level=logging.WARNING, mesh=mesh, count=number)
        case events.HeadStale(age_ms=age_ms):
            log_event("head_stale", level=logging.WARNING, mesh=mesh, ms=age_ms)
        case _:
            pass
