"""One name for several nodes: a TCP proxy that gives each connection to the node that has the fewest."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

CONNECTS_WITHIN_S: Final = 1.0
"""A node that is cut off does not say so."""
LOOPBACK: Final = "127.0.0.1"


class Balancer:
    """Forwards connections to whichever of `ports` takes them."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        """Of the nodes."""
        self.addresses: dict[int, str] = {}
        """By port, of nodes that are not on loopback."""
        self.port = 0
        self.open: Counter[int] = Counter()
        """Connections by node."""
        self._writers: set[StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def cut(self) -> None:
        """Reset every connection, on both sides."""
        for writer in self._writers:
            writer.transport.abort()

    def hush(self) -> None:
        """Carry nothing any more, and say nothing: connections stay open, as when a cable was pulled."""
        self._flowing.clear()

    def carry(self) -> None:
        """Go on after `hush`."""
        self._flowing.set()

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One connection of a client."""
        for port in sorted(self.ports, key=self.open.__getitem__):
            try:
                async with asyncio.timeout(CONNECTS_WITHIN_S):
                    far_reader, far_writer = await asyncio.open_connection(self.addresses.get(port, LOOPBACK), port)
            except OSError:  # a timeout is one
                continue
            self.open[port] += 1
            self._writers |= {writer, far_writer}
            try:
                await asyncio.gather(self._pipe(reader, far_writer), self._pipe(far_reader, writer))
            finally:
                self.open[port] -= 1
                self._writers -= {writer, far_writer}
            return
        writer.close()

    async def _pipe(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        with suppress(OSError):
            writer.close()


@asynccontextmanager
async def balancer() -> AsyncIterator[Balancer]:
    """A balancer without nodes."""
    made = Balancer()
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.create_task(made.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
