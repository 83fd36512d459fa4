"""Handing a whole roster to a broker that does not hold it: a new mesh, a move, a broker that lost everything."""

import asyncio
from collections.abc import Sequence

from claudemesh.errors import Refused
from claudemesh.peer.line import Connect, Line, dial
from claudemesh.peer.membership import upload_chunks
from claudemesh.peer.runtime import Runtime
from claudemesh.protocol.link import Founder
from claudemesh.protocol.messages import Append, Appended
from claudemesh.protocol.roster import Entry
from claudemesh.types import BrokerId


async def broker_at(connect: Connect, url: str, runtime: Runtime) -> BrokerId:
    """Learn the key of the broker at `url`, by its challenge.

    Raises:
        Unreachable, HandshakeRefused: Nobody answers there, or for another address.
    """
    line, _ = await dial(connect, url, None, Founder(), runtime)
    try:
        return line.broker
    finally:
        await line.close()


async def upload_log(connect: Connect, url: str, broker: BrokerId, entries: Sequence[Entry], runtime: Runtime) -> None:
    """Upload a roster from its genesis on; its last broker entry must name `broker`.

    A broker that holds the beginning of it already, as after an upload that was cut short, gets the rest.

    Raises:
        Refused: `mesh_creation_closed`, `invalid` and others; the mesh is not served there.
        Unreachable, HandshakeRefused: Whether it was uploaded is unknown; repeating it is harmless.
    """
    line, _ = await dial(connect, url, broker, Founder(), runtime)
    reading = asyncio.create_task(line.run(lambda _: None))
    try:
        found = await line.request(Append(rid=0, entries=[entries[0]]), Appended)
        for chunk in upload_chunks(list(entries[found.seq + 1 :])):
            await _append(line, chunk)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await line.close()


async def _append(line: Line, chunk: list[Entry]) -> None:
    """Append, and wait as long as a broker that is busy asks for."""
    while True:
        try:
            await line.request(Append(rid=0, entries=chunk), Appended)
        except Refused as error:
            if error.code != "rate_limited":
                raise
            await asyncio.sleep((error.retry_after_ms or 1_000) / 1000)
        else:
            return
