"""A guest of the daemon whose import lasts until a test lets it end, as that of a large library does under load."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from claudemesh.daemon.attaching import Daemon
from tests.attached import GO_ON

while not Path(os.environ["CLAUDEMESH_CONFIG_DIR"], GO_ON).exists():
    time.sleep(0.01)


async def serve(
    daemon: Daemon, args: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Say that it is there."""
    writer.write(b"here\n")
    await writer.drain()
