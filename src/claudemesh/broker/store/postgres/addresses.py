"""The short numbers that stand for peers in the rows of the mailbox."""

from collections.abc import Iterable, Sequence
from typing import Final

from claudemesh.broker.store.postgres.transaction import Transaction
from claudemesh.types import MeshId, PeerId

Address = tuple[MeshId, PeerId]
"""One mailbox: a peer in a mesh."""

MAX_CACHED: Final = 50_000

_ADD: Final = """
    INSERT INTO peers (mesh_id, peer_id)
    SELECT mesh_id, peer_id FROM unnest($1::text[], $2::text[]) k (mesh_id, peer_id) ORDER BY 1, 2
    ON CONFLICT DO NOTHING
"""
_FIND: Final = """
    SELECT k.mesh_id, k.peer_id, ref FROM unnest($1::text[], $2::text[]) k (mesh_id, peer_id)
    JOIN peers p ON p.mesh_id = k.mesh_id AND p.peer_id = k.peer_id
"""


class Addresses:
    """Addresses in meshes that are held, and their numbers; a number is never used for a second peer.

    They are cached under the number of the mesh's row: a mesh that another node has deleted has another one when it
    comes back.
    """

    def __init__(self) -> None:
        self._refs: dict[tuple[int, PeerId], int] = {}

    def forget(self) -> None:
        """Drop what is cached: something was undone."""
        self._refs.clear()

    async def find(self, transaction: Transaction, addresses: Iterable[Address]) -> dict[Address, int]:
        """The numbers of those peers that have had a mailbox."""
        known: dict[Address, int] = {}
        missing: list[Address] = []
        for address in dict.fromkeys(addresses):
            ref = self._refs.get((transaction.mesh(address[0]).ref, address[1]))
            if ref is None:
                missing.append(address)
            else:
                known[address] = ref
        if missing:
            await self._load(transaction, missing, known)
        return known

    async def obtain(self, transaction: Transaction, addresses: Iterable[Address]) -> dict[Address, int]:
        """The numbers of peers, given now to those that had none."""
        wanted = list(dict.fromkeys(addresses))
        known = await self.find(transaction, wanted)
        missing = [address for address in wanted if address not in known]
        if missing:
            await transaction.execute(_ADD, *columns_of(missing))
            await self._load(transaction, missing, known)
        return known

    async def _load(self, transaction: Transaction, missing: list[Address], known: dict[Address, int]) -> None:
        if len(self._refs) > MAX_CACHED:
            self._refs.clear()
        for mesh, peer, ref in await transaction.fetch(_FIND, *columns_of(missing)):
            known[mesh, peer] = self._refs[transaction.mesh(mesh).ref, peer] = ref


def columns_of(addresses: Sequence[Address]) -> tuple[list[MeshId], list[PeerId]]:
    """Meshes and peers, as two columns."""
    return [mesh for mesh, _ in addresses], [peer for _, peer in addresses]
