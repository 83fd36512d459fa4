"""What time brings to a broker: links that are silent, presence that ends, rows that have no use any more."""

import asyncio
from typing import Final

from claudemesh.broker.core import Core
from claudemesh.broker.heart import unix_millis
from claudemesh.broker.http import Http
from claudemesh.broker.members import Members
from claudemesh.broker.server import Server
from claudemesh.errors import LocalError
from claudemesh.transport.listener import Listener
from claudemesh.types import UnixMillis

CLEANING_INTERVAL_S: Final = 60.0
SWEEP_INTERVAL_S: Final = 1.0


class Upkeep:
    """Two loops, and what a broker that starts takes up again."""

    def __init__(self, core: Core, listener: Listener, server: Server, http: Http, members: Members) -> None:
        self._core = core
        self._listener = listener
        self._server = server
        self._http = http
        self._members = members

    async def restore_presence(self) -> None:
        """Who was connected when the broker stopped may come back without joining anew."""
        core, now, limits = self._core, unix_millis(), self._core.limits
        for row in await core.store.expire_presence(UnixMillis(now + 1)):
            if now - row.last_seen <= limits.presence_lease_ms + limits.rejoin_grace_ms:
                core.presence.restore(row.mesh, row.peer, row.last_seen, now)

    async def count_rosters(self) -> None:
        """How much there is of what is kept for good."""
        self._core.ordering.holdings.counted(await self._core.store.meshes())

    async def sweep_forever(self) -> None:
        """Close links that said nothing in time, end presence that nobody renewed, settle what was doubtful."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            self._listener.sweep()
            self._server.sweep()
            self._http.half_open = self._listener.half_open
            try:
                await self._members.sweep()
                await self._core.ordering.settle_doubts()
            except LocalError:
                self._core.metrics.store_failures += 1

    async def clean_forever(self) -> None:
        """Delete what has no use any more: expired attestations, logs that never became ours."""
        while True:
            await asyncio.sleep(CLEANING_INTERVAL_S)
            now, core = self._core.clock(), self._core
            core.presence.forget_all_but({mesh.id for mesh in core.directory.loaded()})
            try:
                await core.store.expire_attestations(now)
                before = UnixMillis(now - core.limits.unserved_lifetime_ms)
                rows = await core.store.meshes()
                core.ordering.holdings.counted(rows)
                for row in rows:
                    mesh = core.directory.cached(row.mesh)
                    if row.served or row.created_at >= before or (mesh and mesh.used):
                        continue
                    core.directory.forget(row.mesh)
                    await core.store.delete_mesh(row.mesh, unserved_before=before)
            except LocalError:
                core.metrics.store_failures += 1
