"""The bus over NATS core: at most once, and nothing is kept (docs/spec/cluster.md §3)."""

import asyncio
import contextlib
from typing import Final

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from claudemesh.broker.bus.base import MAX_HINT_BYTES, AnyHint, Receive, decode_hint, encode_hint
from claudemesh.types import BrokerId

SUBJECT: Final = "claudemesh.1"
"""What every subject begins with; the broker's key follows, so that brokers may share a server."""
CONNECT_TIMEOUT_S: Final = 2
RECONNECT_AFTER_S: Final = 1
PING_INTERVAL_S: Final = 2
"""A server that answers two of these too few is left: a frozen one must not look like a silent one."""
MAX_UNSENT: Final = 10_000
_CLOSE_TIMEOUT_S: Final = 1.0


class NatsBus:
    """One node's connection to NATS; implements `Bus`."""

    def __init__(self, url: str, broker: BrokerId) -> None:
        """Describe a connection.

        Args:
            url: `nats://` or `tls://`, with credentials where the server wants them; several with commas between.
        """
        self._servers = url.split(",")
        self._subject = f"{SUBJECT}.{broker}"
        self._client = Client()
        self._unsent: asyncio.Queue[bytes] = asyncio.Queue(MAX_UNSENT)
        self._tasks: list[asyncio.Task[None]] = []
        self._receive: Receive | None = None
        self._has_begun = False

    async def open(self, receive: Receive) -> None:
        """Start to carry hints; see `Bus.open`."""
        self._receive = receive
        self._tasks = [asyncio.create_task(self._stay_connected()), asyncio.create_task(self._send_forever())]

    def is_connected(self) -> bool:
        """Whether hints come and go now."""
        return bool(self._client.is_connected)

    def publish(self, hint: AnyHint) -> None:
        """Tell the other nodes, or drop the hint; see `Bus.publish`."""
        raw = encode_hint(hint)
        if self.is_connected() and len(raw) <= MAX_HINT_BYTES:
            with contextlib.suppress(asyncio.QueueFull):
                self._unsent.put_nowait(raw)

    async def close(self) -> None:
        """Send what was published, and stop."""
        with contextlib.suppress(TimeoutError, nats.errors.Error, OSError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                if self.is_connected():
                    await self._unsent.join()
                    await self._client.flush()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._has_begun:
            return
        with contextlib.suppress(TimeoutError, nats.errors.Error, OSError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._client.close()

    async def _stay_connected(self) -> None:
        """Connect, however long that takes. The client reconnects by itself until the server refuses it: then anew."""
        while True:
            self._client, closed = Client(), asyncio.Event()
            try:
                await self._connect(self._client, closed)
                await closed.wait()
            except (nats.errors.Error, OSError, TimeoutError):
                pass  # refused; the operator may be about to mend that
            await asyncio.sleep(RECONNECT_AFTER_S)

    async def _connect(self, client: Client, closed: asyncio.Event) -> None:
        async def on_closed() -> None:
            closed.set()

        self._has_begun = True
        await client.connect(
            self._servers,
            name="claudemesh",
            no_echo=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            reconnect_time_wait=RECONNECT_AFTER_S,
            max_reconnect_attempts=-1,
            ping_interval=PING_INTERVAL_S,
            pending_size=0,  # a hint that comes late is worth nothing: the poll was faster
            error_cb=_ignore,
            closed_cb=on_closed,
        )
        await client.subscribe(self._subject, cb=self._take)

    async def _send_forever(self) -> None:
        while True:
            raw = await self._unsent.get()
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._client.publish(self._subject, raw)
            self._unsent.task_done()

    async def _take(self, message: Msg) -> None:
        try:
            hint = decode_hint(message.data)
        except (msgspec.DecodeError, RecursionError):
            return  # of a newer node, or of somebody who should not be here
        if self._receive is not None:
            self._receive(hint)


async def _ignore(error: Exception) -> None:
    """Whether there is a connection is asked for where it matters; the client's own log would name the server."""
