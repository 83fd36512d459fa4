"""How much each mailbox holds: counted in the database, then kept up to date in memory.

What other nodes write is not seen here. So beside other nodes a count is believed for a while only.
"""

import time
from collections.abc import Sequence
from typing import Final

from claudemesh.broker.store.base import Usage
from claudemesh.broker.store.postgres.addresses import Address, columns_of
from claudemesh.broker.store.postgres.transaction import Transaction
from claudemesh.types import MeshId

MAX_CACHED: Final = 50_000
MAX_AGE_S: Final = 2.0
MAX_AGE_OF_MESH_S: Final = 30.0
"""All mailboxes of a mesh take longer to count than one."""

_COUNT: Final = """
    SELECT p.mesh_id, p.peer_id, rows, size FROM unnest($1::text[], $2::text[]) k (mesh_id, peer_id)
    JOIN peers p ON p.mesh_id = k.mesh_id AND p.peer_id = k.peer_id
    CROSS JOIN LATERAL (SELECT count(*) AS rows, sum(size)::bigint AS size FROM mailbox WHERE recipient = p.ref) m
    WHERE rows > 0
"""

COUNT_ALL: Final = """
    SELECT count(*), coalesce(sum(size), 0)::bigint FROM peers p JOIN mailbox ON recipient = p.ref WHERE p.mesh_id = $1
"""

BY_SENDER: Final = """
    SELECT s.peer_id, count(*), sum(size)::bigint
    FROM peers r JOIN mailbox ON recipient = r.ref JOIN peers s ON s.ref = sender
    WHERE r.mesh_id = $1 AND r.peer_id = $2 AND kind <> 'sys' GROUP BY 1
"""


class Usages:
    """Rows and bytes of mailboxes."""

    def __init__(self) -> None:
        self.shared = True
        """Whether other nodes may write."""
        self._known: dict[Address, tuple[Usage, float]] = {}
        self._meshes: dict[MeshId, tuple[Usage, float]] = {}

    def forget(self) -> None:
        """Drop what is cached: something was undone or deleted."""
        self._known.clear()
        self._meshes.clear()

    def find(self, address: Address) -> Usage | None:
        """What a mailbox holds, if that is known well enough without asking the database."""
        found = self._known.get(address)
        if found is None or (self.shared and time.monotonic() - found[1] > MAX_AGE_S):
            return None
        return found[0]

    def find_mesh(self, mesh: MeshId) -> Usage | None:
        """What all mailboxes of a mesh hold, as `find`."""
        found = self._meshes.get(mesh)
        return None if found is None or time.monotonic() - found[1] > MAX_AGE_OF_MESH_S else found[0]

    def keep_mesh(self, mesh: MeshId, counted: Usage) -> None:
        """What a mesh was counted to hold: kept up to date from now on, for a while."""
        self._meshes[mesh] = counted, time.monotonic()

    async def load(self, transaction: Transaction, addresses: Sequence[Address]) -> list[Usage]:
        """Count what mailboxes hold, and keep the counts up to date from now on."""
        counted_at = time.monotonic()
        counted = dict.fromkeys(addresses, Usage(0, 0))
        for mesh, peer, rows, size in await transaction.fetch(_COUNT, *columns_of(list(counted))):
            counted[mesh, peer] = Usage(rows, size)
        if len(self._known) + len(counted) > MAX_CACHED:
            self._known.clear()
        self._known.update((address, (usage, counted_at)) for address, usage in counted.items())
        return [counted[address] for address in addresses]

    def count(self, address: Address, rows: int, size: int) -> None:
        """Rows were added to a mailbox, or removed."""
        found = self._known.get(address)
        if found is not None:
            usage, counted_at = found
            self._known[address] = Usage(usage.rows + rows, usage.size + size), counted_at
        whole = self._meshes.get(address[0])
        if whole is not None:
            self._meshes[address[0]] = Usage(whole[0].rows + rows, whole[0].size + size), whole[1]
