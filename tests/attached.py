"""What a test brings into a daemon's process: a connection that echoes, and an adapter that shows what it takes."""

import asyncio
import sys
from contextlib import suppress
from typing import Any, Final

from claudemesh.daemon.agents import AgentSession
from claudemesh.daemon.app import run_daemon
from claudemesh.daemon.attaching import Daemon

ATTACHMENTS: Final = {
    "test.echo": "tests.attached:echo",
    "test.defect": "tests.attached:defect",
    "test.late": "tests.attached_late:serve",
}
GO_ON: Final = "go-on"
"""The file in the configuration directory that lets the import of `test.late` end."""
ADAPTERS: Final = {"test-host": "tests.attached:attend"}


async def echo(
    daemon: Daemon, args: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Say who is there, then send every line back."""
    status = await daemon.perform("daemon.status", {})
    writer.write(f"{args['name']} at {status['pid']}\n".encode())
    with suppress(ConnectionError):
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()


async def defect(
    daemon: Daemon, args: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Fail."""
    raise RuntimeError("canary-secret")


async def attend(daemon: Daemon, session: AgentSession) -> None:
    """Put everything that may wake the session before it, and confirm it at once."""
    async for news in session.news():
        if news.wakes:
            taken = await session.take("idle_wake", "test-host.push")
            await session.confirm(taken.ids, "turn_acknowledged")


if __name__ == "__main__":
    sys.exit(run_daemon(announce=False, attachments=ATTACHMENTS, adapters=ADAPTERS))
