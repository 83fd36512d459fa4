"""Takes over a connection of `claudemesh mcp`: the SDK is imported when the first one comes.

That takes more than half a second and 60 MB, which a daemon without an agent does not pay; in a thread, so that the
others it serves meanwhile do not wait for it.
"""

import asyncio
import importlib
from typing import Any

from claudemesh.daemon.attaching import Daemon


async def attach(
    daemon: Daemon, args: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Serve one session of a host until it hangs up.

    Args:
        args: As `options.attach_arguments` made them.
    """
    server = await asyncio.to_thread(importlib.import_module, "claudemesh.mcp.server")
    await server.serve(daemon, args, reader, writer)
