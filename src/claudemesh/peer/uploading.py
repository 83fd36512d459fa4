"""Handing a roster to a broker that does not hold it, or has lost its end: a new mesh, a move, a store that is gone."""

import asyncio
from collections.abc import Sequence

import msgspec

from claudemesh.errors import Refused
from claudemesh.peer.line import Connect, Line, dial
from claudemesh.peer.runtime import Runtime
from claudemesh.protocol import limits
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


def upload_chunks(entries: list[Entry]) -> list[list[Entry]]:
    """Split entries into frames of at most `MAX_ENTRIES_PER_FRAME` entries and half of `MAX_UPLOAD_FRAME_BYTES`."""
    chunks: list[list[Entry]] = []
    size = 0
    for entry in entries:
        length = len(msgspec.json.encode(entry)) + 1
        full = not chunks or len(chunks[-1]) >= limits.MAX_ENTRIES_PER_FRAME
        if full or size + length > limits.MAX_UPLOAD_FRAME_BYTES // 2:
            chunks.append([])
            size = 0
        chunks[-1].append(entry)
        size += length
    return chunks


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
