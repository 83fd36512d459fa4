"""What a node does because there are others: it listens to hints, and looks by itself in case one was lost.

docs/spec/cluster.md §3.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from claudemesh.broker.bus.base import AnyHint, Bus, Gone, Moved, Said, Scheduled, Superseded, Waiting
from claudemesh.broker.directory import Directory, Mesh
from claudemesh.broker.following import Following
from claudemesh.broker.leasing import Leasing, Spawn
from claudemesh.broker.links import Link
from claudemesh.broker.logs import Log
from claudemesh.broker.metrics import Metrics
from claudemesh.broker.notices import show
from claudemesh.broker.policy import Limits
from claudemesh.broker.store.base import Store
from claudemesh.crypto import statements
from claudemesh.errors import BadSignature, LocalError, Malformed
from claudemesh.protocol.messages import Closing
from claudemesh.types import BrokerId, MeshId, UnixMillis

POLL_S: Final = 5.0
"""How long a lost hint can delay something while the bus is connected."""
POLL_WITHOUT_BUS_S: Final = 0.5
BUS_LOST_S: Final = 5.0
"""Absences of the bus that are shorter, as at the start and while its server is restarted, are not worth a line."""
_TICK_S: Final = 0.1
MAILBOXES_PER_QUERY: Final = 2_000


class Cluster:
    """One node among others."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        directory: Directory,
        following: Following,
        leasing: Leasing,
        broker: BrokerId,
        limits: Limits,
        metrics: Metrics,
        clock: Callable[[], UnixMillis],
        spawn: Spawn,
        log: Log,
    ) -> None:
        self._store = store
        self._bus = bus
        self._directory = directory
        self._following = following
        self._leasing = leasing
        self._broker = broker
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._spawn = spawn
        self._log = log
        self._looked_at = 0.0
        self._connected_at = 0.0
        """When the bus was last seen to be connected; or when this began."""
        self._is_bus_lost = False
        self._refreshing: set[MeshId] = set()

    def receive(self, hint: AnyHint) -> None:
        """Take a hint of another node; nothing in it is believed."""
        self._metrics.hints_received += 1
        match hint:
            case Waiting(mesh=mesh, peers=peers):
                self._leasing.look(mesh, peers, elsewhere=True)
            case Scheduled():
                self._leasing.look_for_due()
            case Moved(mesh=mesh):
                self._refresh_soon(mesh)
            case Said():
                self._show(hint)
            case Superseded(mesh=mesh, link=link):
                self._spawn(self._close_superseded(mesh, link))
            case Gone():
                self.look_soon()

    def look_soon(self) -> None:
        """Something may wait that no hint speaks of."""
        self._looked_at = 0.0

    async def poll_forever(self) -> None:
        """Look where a hint may have been lost: often while there is no bus, and as soon as there is one again."""
        was_connected = False
        self._connected_at = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(_TICK_S)
            is_connected = self._bus.is_connected()
            self._note_bus(is_connected)
            interval_s = POLL_S if is_connected else POLL_WITHOUT_BUS_S
            loop = asyncio.get_running_loop()
            if is_connected == was_connected and loop.time() - self._looked_at < interval_s:
                continue
            was_connected, self._looked_at = is_connected, loop.time()
            try:
                await self.look()
            except LocalError:
                self._metrics.store_failures += 1

    def _note_bus(self, is_connected: bool) -> None:
        """Log once that the bus is away, when that has lasted, and once that it is back: nothing else shows it."""
        now = asyncio.get_running_loop().time()
        if is_connected:
            self._connected_at = now
            if self._is_bus_lost:
                self._is_bus_lost = False
                self._log.info("bus_back")
        elif not self._is_bus_lost and now - self._connected_at >= BUS_LOST_S:
            self._is_bus_lost = True
            self._log.warning("bus_lost")

    async def look(self) -> None:
        """Compare everything that open links depend on with the store."""
        meshes = [mesh for mesh in self._directory.loaded() if mesh.links or mesh.used]
        await self._following.refresh_outdated(meshes)
        mailboxes = [(mesh.id, mailbox.peer) for mesh in meshes for mailbox in mesh.mailboxes.values() if mailbox.links]
        for start in range(0, len(mailboxes), MAILBOXES_PER_QUERY):
            some = mailboxes[start : start + MAILBOXES_PER_QUERY]
            for mesh_id, peer in await self._store.waiting(some, self._clock()):
                self._leasing.look(mesh_id, (peer,))

    def _refresh_soon(self, mesh_id: MeshId) -> None:
        """One task for each mesh, however many hints come meanwhile: each looks anew while it has the lock."""
        mesh = self._directory.cached(mesh_id)
        if mesh is not None and mesh_id not in self._refreshing:
            self._refreshing.add(mesh_id)
            self._spawn(self._refresh(mesh))

    async def _refresh(self, mesh: Mesh) -> None:
        try:
            async with mesh.appending:
                self._refreshing.discard(mesh.id)  # a hint that comes from here on may speak of something newer
                await self._following.look(mesh)
        except LocalError:
            self._metrics.store_failures += 1

    def _show(self, hint: Said) -> None:
        """Pass on what the broker has signed elsewhere; anything else would let the bus speak in its name."""
        mesh = self._directory.cached(hint.mesh)
        if mesh is None or hint.st.k != self._broker:
            return
        try:
            body = statements.open_statement(hint.st, "sys")
        except (Malformed, BadSignature):
            return
        if body.get("mesh") == hint.mesh and body.get("who") == hint.peer:
            show(mesh, hint.peer, hint.st, self._limits.presence_fanout_links, self._limits.buffered_bytes)

    async def _close_superseded(self, mesh_id: MeshId, link_id: int) -> None:
        """A session has one link: the store knows which."""
        link = _link(self._directory.cached(mesh_id), link_id)
        if link is None:
            return
        try:
            sessions = await self._store.presence(mesh_id)
        except LocalError:
            return  # the link ends when its lease runs out, and gets nothing that the other one gets
        if any(row.session == link.session and row.link != link.id for row in sessions):
            self._metrics.links_replaced += 1
            link.close(Closing(code="replaced"), audit_reason="replaced")


def _link(mesh: Mesh | None, number: int) -> Link | None:
    if mesh is None:
        return None
    return next((link for link in mesh.links.values() if link.id == number), None)
