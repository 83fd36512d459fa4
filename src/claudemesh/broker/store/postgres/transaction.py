"""One transaction: the meshes that it holds, their audit chains, and the numbers of new mailbox rows.

The row of a mesh is locked before anything of it is read or written, for all meshes of a transaction in one
statement and one order. So transactions of several nodes neither fork an audit chain nor wait for each other in a
circle, and the numbers of rows that are committed in one mesh only ascend.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from claudemesh.broker.audit import Chain, Details, Record
from claudemesh.broker.store.base import Outdated, Version
from claudemesh.broker.store.postgres.connection import Connection
from claudemesh.protocol.audit_rows import EventType
from claudemesh.types import Digest, MeshId, PeerId, UnixMillis

NUMBERS: Final = 1_000
"""How many numbers of rows one step of the sequence stands for."""

_LOCK: Final = """
    WITH held AS MATERIALIZED (
        SELECT mesh_id, ref, length, wishes, audit_n, audit_head FROM meshes
        WHERE mesh_id = ANY ($1) ORDER BY mesh_id FOR UPDATE
    )
    SELECT held.*, nextval('mailbox_q') FROM held
"""
"""Each row is held before its numbers are taken, so the numbers of one mesh ascend with its commits."""
_CREATE: Final = """
    INSERT INTO meshes (mesh_id) SELECT mesh_id FROM unnest($1::text[]) mesh_id ORDER BY mesh_id ON CONFLICT DO NOTHING
"""
_SAVE: Final = """
    UPDATE meshes m SET audit_n = s.audit_n, audit_head = s.audit_head, wishes = s.wishes
    FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[]) s (mesh_id, audit_n, audit_head, wishes)
    WHERE m.mesh_id = s.mesh_id
"""
_NUMBERS: Final = "SELECT nextval('mailbox_q') FROM generate_series(1, $1::bigint)"


class HeldMesh:
    """What the row of one mesh says, which nobody else can change until the transaction ends."""

    __slots__ = ("chain", "changed", "length", "numbers", "ref", "wishes")

    def __init__(self, ref: int, length: int, wishes: int, chain: Chain, first_number: int) -> None:
        self.ref = ref
        self.length = length
        self.wishes = wishes
        self.chain = chain
        self.changed = False
        self.numbers = range(first_number, first_number + NUMBERS)
        """Of its next mailbox rows."""

    @property
    def version(self) -> Version:
        return Version(self.length, self.wishes)

    def count_wish(self) -> None:
        """The subscriptions of the mesh have changed."""
        self.wishes += 1
        self.changed = True


class Transaction:
    """What an operation of the store runs on."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._meshes: dict[MeshId, HeldMesh] = {}
        self._records: list[Record] = []

    async def hold(self, meshes: Collection[MeshId]) -> None:
        """Lock the rows of meshes; once, before anything else."""
        wanted = sorted(set(meshes))
        await self._lock(wanted)
        missing = [mesh for mesh in wanted if mesh not in self._meshes]
        if missing:
            await self.execute(_CREATE, missing)
            await self._lock(wanted)

    def mesh(self, mesh: MeshId) -> HeldMesh:
        """A mesh that is held."""
        return self._meshes[mesh]

    def forget(self, mesh: MeshId) -> None:
        """The row of a mesh was deleted."""
        self._records = [record for record in self._records if record.mesh_id != mesh]
        self._meshes[mesh].changed = False

    def check(self, expected: Mapping[MeshId, Version] | None) -> None:
        """Raise `Outdated` when a mesh is at another version; to be called before anything is changed."""
        if expected:
            outdated = {mesh for mesh, version in expected.items() if self._meshes[mesh].version != version}
            if outdated:
                raise Outdated(frozenset(outdated))

    # SQL

    async def fetch(self, sql: str, *parameters: Any) -> list[Any]:
        """As `Connection.fetch`."""
        return await self._connection.fetch(sql, *parameters)

    async def execute(self, sql: str, *parameters: Any) -> int:
        """As `Connection.execute`."""
        return await self._connection.execute(sql, *parameters)

    async def copy(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """As `Connection.copy`."""
        await self._connection.copy(table, columns, rows)

    # Numbers of rows

    async def numbers(self, mesh: MeshId, count: int) -> list[int]:
        """Numbers of new mailbox rows in a mesh, ascending, none of which is used again."""
        held = self._meshes[mesh]
        taken = list(held.numbers[:count])
        held.numbers = held.numbers[count:]
        missing = count - len(taken)
        if missing:
            firsts = [first for (first,) in await self.fetch(_NUMBERS, -(-missing // NUMBERS))]
            last = firsts[-1]
            more = [number for first in firsts for number in range(first, first + NUMBERS)]
            taken += more[:missing]
            held.numbers = range(last + NUMBERS - (len(more) - missing), last + NUMBERS)
        return taken

    # Audit

    def record(
        self,
        mesh: MeshId,
        event_type: EventType,
        actor: PeerId | None,
        target: PeerId | None,
        details: Details,
        now: UnixMillis,
    ) -> Record:
        """Append one event to the audit log of a mesh."""
        held = self._meshes[mesh]
        held.changed = True
        record = held.chain.add(event_type, actor, target, details, now)
        self._records.append(record)
        return record

    async def flush(self) -> None:
        """Write the audit rows and the rows of the meshes that have changed."""
        records, self._records = self._records, []
        await self.copy("audit_log", Record._fields, records)
        changed = [(mesh, held) for mesh, held in self._meshes.items() if held.changed]
        if changed:
            columns = zip(*((mesh, held.chain.n, held.chain.head, held.wishes) for mesh, held in changed), strict=True)
            await self.execute(_SAVE, *map(list, columns))
        for _, held in changed:
            held.changed = False

    async def restore(self, meshes: Collection[MeshId]) -> None:
        """What was done since the last flush has been undone."""
        self._records = []
        self._meshes.clear()
        await self.hold(meshes)

    async def _lock(self, meshes: Sequence[MeshId]) -> None:
        for mesh, ref, length, wishes, n, head, number in await self.fetch(_LOCK, meshes):
            self._meshes[mesh] = HeldMesh(ref, length, wishes, Chain(mesh, n, Digest(head)), number)
