"""How much each mailbox holds: counted once in the database, then kept up to date in memory."""

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from claudemesh.broker.store.base import Usage
from claudemesh.broker.store.sqlite.addresses import Address, Addresses
from claudemesh.types import MeshId, PeerId

MAX_CACHED: Final = 50_000

_COUNT: Final = """
    SELECT recipient, count(*), sum(size) FROM mailbox
    WHERE recipient IN (SELECT value FROM json_each(?)) GROUP BY recipient
"""

_COUNT_ALL: Final = """
    SELECT count(*), coalesce(sum(size), 0) FROM mailbox WHERE recipient IN (SELECT ref FROM peers WHERE mesh_id = ?)
"""

_BY_SENDER: Final = """
    SELECT s.peer_id, count(*), sum(size)
    FROM peers r JOIN mailbox ON recipient = r.ref JOIN peers s ON s.ref = sender
    WHERE r.mesh_id = ? AND r.peer_id = ? AND kind <> 'sys' GROUP BY sender
"""

_to_json: Final = msgspec.json.Encoder().encode


def by_sender(connection: sqlite3.Connection, mesh: MeshId, peer: PeerId) -> dict[PeerId, tuple[int, int]]:
    """Rows and bytes of each sender in a mailbox. On any thread."""
    found = connection.execute(_BY_SENDER, (mesh, peer)).fetchall()
    return {sender: (rows, size) for sender, rows, size in found}


class Usages:
    """Rows and bytes of mailboxes; what is not known is counted when it is asked for."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._known: dict[Address, Usage] = {}
        self._meshes: dict[MeshId, Usage] = {}

    def forget(self) -> None:
        """Drop what is cached: something was undone or deleted."""
        self._known.clear()
        self._meshes.clear()

    def find(self, address: Address) -> Usage | None:
        """What a mailbox holds, if that is known without asking the database. On any thread."""
        return self._known.get(address)

    def find_mesh(self, mesh: MeshId) -> Usage | None:
        """What all mailboxes of a mesh hold, as `find`."""
        return self._meshes.get(mesh)

    def load_mesh(self, connection: sqlite3.Connection, mesh: MeshId) -> Usage:
        """Count what a mesh holds, as `load`."""
        rows, size = connection.execute(_COUNT_ALL, (mesh,)).fetchone()
        self._meshes[mesh] = counted = Usage(rows, size)
        return counted

    def load(self, connection: sqlite3.Connection, addresses: Sequence[Address]) -> list[Usage]:
        """Count what mailboxes hold, and keep the counts up to date from now on. For the writer."""
        refs = {self._addresses.find(connection, address): address for address in addresses}
        counted = dict.fromkeys(addresses, Usage(0, 0))
        stored = _to_json([ref for ref in refs if ref is not None]).decode()
        for ref, rows, size in connection.execute(_COUNT, (stored,)).fetchall():
            counted[refs[ref]] = Usage(rows, size)
        if len(self._known) + len(counted) > MAX_CACHED:
            self._known.clear()
        self._known.update(counted)
        return [counted[address] for address in addresses]

    def count(self, address: Address, rows: int, size: int) -> None:
        """Rows were added to a mailbox, or removed. For the writer."""
        usage = self._known.get(address)
        if usage is not None:
            self._known[address] = Usage(usage.rows + rows, usage.size + size)
        whole = self._meshes.get(address[0])
        if whole is not None:
            self._meshes[address[0]] = Usage(whole.rows + rows, whole.size + size)
