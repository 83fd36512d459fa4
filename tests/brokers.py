"""Brokers for tests: inside the test's process, or as a process that can be killed."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

from claudemesh.broker.app import Broker, Limits, Listen, Settings

GENEROUS: Final = Limits(failed_handshakes_per_minute=10_000, claims_per_minute_per_address=10_000)
"""All tests share one address."""


def settings(directory: Path, *, limits: dict[str, int] | None = None, **changes: Any) -> Settings:
    """A broker on a free port of this machine, with its database and log in `directory`."""
    usual = Settings(
        listen=Listen("127.0.0.1", 0),
        database=directory / "broker.db",
        log_file=directory / "broker.log",
        limits=replace(GENEROUS, **(limits or {})),
    )
    return replace(usual, **changes)


@asynccontextmanager
async def serving(directory: Path, *, limits: dict[str, int] | None = None, **changes: Any) -> AsyncIterator[Broker]:
    """A broker in this process."""
    async with Broker(settings(directory, limits=limits, **changes)) as broker:
        yield broker


class BrokerProcess:
    """`claudemesh broker` as a process of its own."""

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        port: int = 0,
        address: str = "127.0.0.1",
        within: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        """`within` is what to put before its command; `environment` adds variables."""
        self._directory = directory
        self._arguments = arguments
        self._within = within
        self._environment = None if environment is None else os.environ | environment
        self.address = address
        self.port = port
        self.process: Process | None = None
        self.url = ""

    @property
    def log(self) -> Path:
        return self._directory / "broker.log"

    async def start(self) -> Self:
        """Start, and wait until it listens; after a restart on the same port."""
        command = "from claudemesh.cli.broker import broker; broker()"
        self.process = await asyncio.create_subprocess_exec(
            *self._within,
            sys.executable,
            "-c",
            command,
            "--listen",
            f"{self.address}:{self.port}",
            "--database",
            f"sqlite:///{self._directory / 'broker.db'}",
            "--log-file",
            str(self.log),
            "--json",
            *self._arguments,
            stdout=asyncio.subprocess.PIPE,
            env=self._environment,
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            started = json.loads(await self.process.stdout.readline())
        self.port, self.url = started["port"], started["url"]
        return self

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def terminate(self) -> int:
        """SIGTERM; returns its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            return await self.process.wait()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        if self.process is not None and self.process.returncode is None:
            await self.kill()
