"""The short numbers that stand for peers in the rows of the mailbox."""

import sqlite3
from collections.abc import Iterable
from typing import Final

import msgspec

from claudemesh.broker.store.sqlite.many_rows import ManyRows
from claudemesh.types import MeshId, PeerId

Address = tuple[MeshId, PeerId]
"""One mailbox: a peer in a mesh."""

MAX_CACHED: Final = 50_000

_FIND: Final = "SELECT ref FROM peers WHERE mesh_id = ? AND peer_id = ?"
_ADD: Final = ManyRows(
    "INSERT OR IGNORE INTO peers (mesh_id, peer_id) SELECT * FROM (VALUES :rows) WHERE column1 IS NOT NULL", width=2
)
_FIND_MANY: Final = """
    SELECT json_group_array(json_array(mesh_id, peer_id, ref))
    FROM json_each(?) CROSS JOIN peers ON mesh_id = value ->> 0 AND peer_id = value ->> 1
"""
_to_json: Final = msgspec.json.Encoder().encode
_from_json: Final = msgspec.json.Decoder(list[tuple[MeshId, PeerId, int]]).decode


class Addresses:
    """Addresses and their numbers; a number is never used for a second peer."""

    def __init__(self) -> None:
        self._refs: dict[Address, int] = {}

    def forget(self) -> None:
        """Drop what is cached: something was undone or deleted."""
        self._refs.clear()

    def find(self, connection: sqlite3.Connection, address: Address) -> int | None:
        """The number of a peer that has had a mailbox; for any connection."""
        ref = self._refs.get(address)
        if ref is None:
            row = connection.execute(_FIND, address).fetchone()
            ref = row[0] if row else None
        return ref

    def obtain(self, connection: sqlite3.Connection, addresses: Iterable[Address]) -> dict[Address, int]:
        """The numbers of peers, given now to those that had none; for the writer."""
        known = {address: self._refs.get(address) for address in addresses}
        missing = [address for address, ref in known.items() if ref is None]
        if missing:
            _ADD.execute(connection, missing)
            found = connection.execute(_FIND_MANY, (_to_json(missing).decode(),)).fetchone()[0]
            if len(self._refs) > MAX_CACHED:
                self._refs.clear()
            for mesh, peer, ref in _from_json(found):
                known[mesh, peer] = self._refs[mesh, peer] = ref
        return {address: ref for address, ref in known.items() if ref is not None}
