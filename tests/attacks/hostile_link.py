"""One connection to a hostile broker, and the hooks by which its frames become lies."""

import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from claudemesh.crypto.statements import Statement
from claudemesh.protocol import codec
from claudemesh.protocol.link import BrokerLink, LinkState
from claudemesh.protocol.messages import BrokerMessage, PeerMessage
from claudemesh.types import PeerId
from tests.attacks.hostile_store import HeldMesh, View

if TYPE_CHECKING:
    from tests.attacks.hostile_broker import HostileBroker


@dataclass
class Lies:
    """Hooks; each default is what an honest broker does."""

    challenge: "Callable[[HostileLink], Statement | None]" = lambda link: None
    """Another challenge than one's own, for example one that the real broker made."""
    outgoing: "Callable[[HostileLink, BrokerMessage], Iterable[BrokerMessage | bytes | str]]" = lambda link, frame: (
        frame,
    )
    """What is sent instead of a frame: nothing, another, several, or bytes that are no frame."""
    incoming: "Callable[[HostileLink, PeerMessage], bool | Awaitable[bool]]" = lambda link, frame: False
    """True: the frame is swallowed, no honest answer follows."""


class HostileLink:
    """One connection, as the broker sees it."""

    def __init__(self, broker: "HostileBroker", socket: web.WebSocketResponse) -> None:
        self.broker = broker
        self.socket = socket
        self.protocol = BrokerLink(broker.key, broker.url, os.urandom(32), broker.clock())
        self.heard: list[str] = []
        """Every frame of the peer, as it arrived."""
        self.held: HeldMesh | None = None
        self.peer: PeerId | None = None
        self.uploaded: View | None = None
        self.leased: set[int] = set()
        self.shown: set[str] = set()
        self.closed = False

    @property
    def is_open(self) -> bool:
        return self.protocol.state is LinkState.OPEN and not self.closed

    @property
    def view(self) -> View:
        if self.uploaded is not None:
            return self.uploaded
        assert self.held is not None
        return self.held.view_of(self.peer)

    async def emit(self, frame: BrokerMessage) -> None:
        """Send one frame, or what the lies make of it."""
        for part in self.broker.lies.outgoing(self, frame):
            await self.emit_raw(part if isinstance(part, bytes | str) else codec.encode_message(part))

    async def emit_raw(self, data: bytes | str) -> None:
        """Send bytes as they are."""
        if self.socket.closed:
            return
        frame = data if isinstance(data, bytes) else data.encode()
        try:
            await self.socket.send_frame(frame, WSMsgType.TEXT)
        except (ConnectionError, RuntimeError):
            self.closed = True

    def abort(self) -> None:
        """Break the connection without a word, as a network does."""
        self.closed = True
        transport = self.socket._req.transport if self.socket._req is not None else None
        if transport is not None:
            transport.abort()

    async def close(self) -> None:
        self.protocol.close()
        self.closed = True
        await self.socket.close()
