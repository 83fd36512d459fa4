"""A real NATS server for tests, on a port of its own, which can be killed, frozen and started again."""

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.processes import free_port

STARTED_WITHIN_S = 20


class NatsServer:
    """One `nats-server` without persistence."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.address = address
        self.port = free_port(address)
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"nats://{self.address}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self, *options: str) -> None:
        """Start it, on the same port each time; returns when it takes connections."""
        program = Path(sys.executable).parent / "nats-server"
        self._process = await asyncio.create_subprocess_exec(
            program, "-a", self.address, "-p", str(self.port), *options, stdout=DEVNULL, stderr=DEVNULL
        )
        async with asyncio.timeout(STARTED_WITHIN_S):
            while not await self._answers():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP: its connections stay open and nothing goes through them."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on after `freeze`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(self.address, self.port)
        except OSError:
            return False
        writer.close()
        return True


@asynccontextmanager
async def nats_server(address: str = "127.0.0.1") -> AsyncIterator[NatsServer]:
    """A server that runs, and is gone afterwards."""
    server = NatsServer(address)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
