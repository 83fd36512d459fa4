"""Tells a host what changed of the resources that it watches, and of the tools, in either era of the protocol.

In the 2025 era notifications go to the session, for resources that it subscribed to; in the 2026 era to the streams
that it opened with `subscriptions/listen`, through the SDK's bus.
"""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourcesListChanged, ResourceUpdated, ToolsListChanged

from claudemesh.daemon.agents import AgentSession
from claudemesh.daemon.logs import log_defect
from claudemesh.errors import ClaudemeshError
from claudemesh.mcp.connection import Connection
from claudemesh.mcp.peer_tools import peer_tools
from claudemesh.mcp.resources import INBOX_URI, PEERS_URI, conversation_uri
from claudemesh.peer import Peer, events

LOOK_S: Final = 5.0
"""How often the grants are looked at where they decide which tools there are: nothing tells of them."""

_ROSTER: Final = events.PeerAdmitted | events.PeerRevoked | events.NameAmbiguous
_PRESENCE: Final = events.PresenceChanged | events.LinkUp | events.LinkDown


class Updates:
    """What one connection watches, and the tasks that look out for it."""

    def __init__(self, connection: Connection) -> None:
        self.bus = InMemorySubscriptionBus()
        self._connection = connection
        self._session: ServerSession | None = None
        self._subscribed: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watched: set[Peer] = set()
        self._news_of: AgentSession | None = None
        self._tools: list[str] | None = None

    async def __aenter__(self) -> Self:
        await self._watch()
        if self._connection.peers_as_tools:
            self._begin(self._look_at_tools())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def heard(self, context: ServerRequestContext[Any, Any]) -> None:
        """The host asked for something: by the same way it can be told something."""
        self._session = context.session
        self._begin(self._watch())

    def subscribe(self, context: ServerRequestContext[Any, Any], uri: str) -> None:
        """A host of the 2025 era wants to be told of a resource."""
        self.heard(context)
        self._subscribed.add(uri)

    def unsubscribe(self, uri: str) -> None:
        """It does not any more."""
        self._subscribed.discard(uri)

    async def _watch(self) -> None:
        """Look out for what comes to the session, and for the peers of every mesh, those joined later included."""
        try:
            session = await self._connection.session()
        except ClaudemeshError:
            return
        if session is not self._news_of:
            self._news_of = session
            self._begin(self._follow_news(session))
        for face, _ in list(session.faces.values()):
            if face.peer not in self._watched:
                self._watched.add(face.peer)
                self._begin(self._follow_peer(face.peer))

    async def _follow_news(self, session: AgentSession) -> None:
        async for _ in session.news():
            await self._changed(INBOX_URI)

    async def _follow_peer(self, peer: Peer) -> None:
        try:
            async for event in peer.events():
                await self._tell(peer, event)
        finally:
            self._watched.discard(peer)

    async def _tell(self, peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.MessageArrived):
            await self._changed(conversation_uri(peer.address_of(event.sender)))
        elif isinstance(event, _ROSTER | _PRESENCE | events.EventsDropped):
            await self._changed(PEERS_URI)
            if isinstance(event, _ROSTER):
                await self.bus.publish(ResourcesListChanged())
                if self._session is not None:
                    await self._session.send_resource_list_changed()
                await self._compare_tools()

    async def _changed(self, uri: str) -> None:
        await self.bus.publish(ResourceUpdated(uri=uri))
        if self._session is not None and uri in self._subscribed:
            await self._session.send_resource_updated(uri)

    async def _look_at_tools(self) -> None:
        while True:
            await self._compare_tools()
            await asyncio.sleep(LOOK_S)

    async def _compare_tools(self) -> None:
        """Tell the host when the tools that stand for peers are others than before."""
        try:
            found = [one.name for one in await peer_tools(self._connection)]
        except ClaudemeshError:
            return
        before, self._tools = self._tools, found
        if before is None or before == found:
            return
        await self.bus.publish(ToolsListChanged())
        if self._session is not None:
            await self._session.send_tool_list_changed()

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(_isolated(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _isolated(work: Any) -> None:
    try:
        with suppress(ConnectionError, anyio.ClosedResourceError, anyio.BrokenResourceError):
            await work
    except Exception as error:  # noqa: BLE001 - a notification that fails must not end the session
        log_defect("mcp.updates", error)
