"""The short numbers that stand for peers in the rows of the mailbox."""

import sqlite3
from typing import Final

from claudemesh.types import MeshId, PeerId

Address = tuple[MeshId, PeerId]
"""One mailbox: a peer in a mesh."""

MAX_CACHED: Final = 50_000

_FIND: Final = "SELECT ref FROM peers WHERE mesh_id = ? AND peer_id = ?"
_ADD: Final = "INSERT INTO peers (mesh_id, peer_id) VALUES (?, ?)"


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

    def obtain(self, connection: sqlite3.Connection, address: Address) -> int:
        """The number of a peer, given now if it had none; for the writer."""
        ref = self._refs.get(address)
        if ref is None:
            ref = self.find(connection, address)
            if ref is None:
                ref = connection.execute(_ADD, address).lastrowid
                assert ref is not None
            if len(self._refs) >= MAX_CACHED:
                self._refs.clear()
            self._refs[address] = ref
        return ref
