"""Meshes in memory: their rosters, signed heads, links and mailboxes (docs/spec/broker.md §3).

A mesh with open links stays; of the others the least recently used are forgotten and loaded again from
the store when they are asked for. A head is signed only after its entries are committed, so the broker
never signs two heads for one length.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import msgspec

from claudemesh.broker.links import Link
from claudemesh.broker.routing import Mailbox
from claudemesh.broker.store.base import LinkId, Store
from claudemesh.broker.subscriptions import Subscriptions
from claudemesh.crypto import identity
from claudemesh.crypto.identity import Attestation
from claudemesh.crypto.primitives import SigningKey
from claudemesh.crypto.statements import Statement
from claudemesh.errors import ClaudemeshError
from claudemesh.protocol import heads
from claudemesh.protocol.roster import Entry, Roster
from claudemesh.types import BrokerId, Digest, MeshId, PeerId, UnixMillis

MAX_IDLE_MESHES: Final = 128
MAX_IDLE_ENTRIES: Final = 200_000
"""Of all of them together; a peer that was admitted takes a kilobyte of memory, for good."""
MAX_CACHED_ATTESTATIONS: Final = 4_096
_PAGE: Final = 1_000
_REKEY: Final = '"op":"rekey"'

encode_statement: Final = msgspec.json.Encoder().encode
_decode_entry: Final = msgspec.json.Decoder(Entry).decode
decode_statement: Final = msgspec.json.Decoder(Statement).decode
is_key: Final = re.compile("[0-9a-f]{64}\\Z").match
"""Whether a text can be a key or digest at all; what cannot is not looked for in the store."""


@dataclass(frozen=True, slots=True)
class KnownAttestation:
    """A verified attestation, and the statement as it is pushed."""

    attestation: Attestation
    statement: bytes


@dataclass(slots=True, eq=False)
class Mesh:
    """One mesh in memory."""

    id: MeshId
    roster: Roster
    rekeys: dict[PeerId, int]
    """Seq of each peer's last `rekey`: an envelope sealed before it is stale."""
    subscriptions: Subscriptions = field(default_factory=Subscriptions)
    links: dict[LinkId, Link] = field(default_factory=dict)
    mailboxes: dict[PeerId, Mailbox] = field(default_factory=dict)
    attestations: dict[str, KnownAttestation] = field(default_factory=dict)
    appending: asyncio.Lock = field(default_factory=asyncio.Lock)
    spare: Roster | None = None
    """A second roster at the same head, on which the next entries of an upload are tried. Nobody else sees it."""
    unannounced: list[bytes] = field(default_factory=list)
    """The last entries of the roster, which open links were not told of yet."""
    head: Statement | None = None
    head_seq: int = -1
    head_at: int = 0
    wishes: int = 0
    """How often the subscriptions had changed when they were read."""
    used: int = 0
    """Tasks that work on it now: it is not forgotten meanwhile."""

    def mailbox(self, peer: PeerId) -> Mailbox:
        """The route of a peer's mailbox."""
        mailbox = self.mailboxes.get(peer)
        if mailbox is None:
            mailbox = self.mailboxes[peer] = Mailbox(self.id, peer)
        return mailbox

    def serves(self, broker: BrokerId) -> bool:
        """Whether the roster names `broker` now."""
        return self.roster.broker == broker

    def has_moved(self, broker: BrokerId) -> bool:
        """Whether the roster named `broker` once, and names another one now."""
        return not self.serves(broker) and any(key == broker for _, key in self.roster.broker_changes)

    def signed_head(self, key: SigningKey, now: UnixMillis, interval_ms: int) -> Statement:
        """The signed head, made anew when the roster has moved or the last one is older than `interval_ms`."""
        roster = self.roster
        if self.head is None or self.head_seq != roster.seq or now - self.head_at >= interval_ms:
            self.head = heads.sign_head(self.id, roster.seq, roster.head, now, key)
            self.head_seq, self.head_at = roster.seq, now
        return self.head

    def keep_head(self, head: Statement, seq: int, at: UnixMillis) -> None:
        """Hand this one out from now on; the roster ends at `seq` before anything else runs."""
        self.head, self.head_seq, self.head_at = head, seq, at

    def kept_head(self) -> Statement:
        """The signed head that the store keeps for where the roster ends: the only one for that length."""
        if self.head is None or self.head_seq != self.roster.seq:
            raise AssertionError("the roster has moved without its signed head")
        return self.head

    def remember(self, known: KnownAttestation, now: UnixMillis) -> None:
        """Keep an attestation at hand; the store has it too."""
        if len(self.attestations) >= MAX_CACHED_ATTESTATIONS:
            live = {digest: one for digest, one in self.attestations.items() if one.attestation.expires_at > now}
            self.attestations = dict(list(live.items())[MAX_CACHED_ATTESTATIONS // 4 :])
        self.attestations[known.attestation.digest] = known


Revalidate = Callable[[Mesh], Awaitable[bool]]


class Directory:
    """Finds and keeps meshes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.revalidate: Revalidate | None = None
        """Where several nodes write: brings a mesh up to date; returns false when it is not held any more."""
        self._meshes: OrderedDict[MeshId, Mesh] = OrderedDict()
        self._loading: dict[MeshId, asyncio.Task[Mesh | None]] = {}
        self._folding = asyncio.Lock()
        """One page at a time: whoever has many long rosters loaded must not take the processor from the links."""

    def loaded(self) -> Iterable[Mesh]:
        """The meshes in memory."""
        return list(self._meshes.values())

    def cached(self, mesh: MeshId) -> Mesh | None:
        """A mesh, if it is in memory."""
        return self._meshes.get(mesh)

    async def find(self, mesh: MeshId) -> Mesh | None:
        """A mesh, loaded if necessary; None when the broker does not hold it.

        Raises:
            LocalError: The store fails.
        """
        known = self._meshes.get(mesh)
        if known is not None:
            self._meshes.move_to_end(mesh)
            if self.revalidate is not None and not await self.revalidate(known):
                return None
            return known
        task = self._loading.get(mesh)
        if task is None:
            task = self._loading[mesh] = asyncio.create_task(self._load(mesh))
            task.add_done_callback(lambda _: self._loading.pop(mesh, None))
        return await asyncio.shield(task)

    @asynccontextmanager
    async def using(self, mesh_id: MeshId) -> AsyncIterator[Mesh | None]:
        """As `find`, and the mesh is not forgotten inside the context."""
        mesh = await self.find(mesh_id)
        if mesh is None:
            yield None
            return
        mesh.used += 1
        try:
            yield mesh
        finally:
            mesh.used -= 1

    def add(self, mesh: Mesh) -> None:
        """Keep a mesh whose genesis was stored just now."""
        self._meshes[mesh.id] = mesh
        self._evict()

    def forget(self, mesh: MeshId) -> None:
        """Drop a mesh from memory; it is loaded again when it is asked for."""
        self._meshes.pop(mesh, None)

    async def reload(self, mesh: Mesh) -> None:
        """Read a mesh's roster again, after an append that was undone or overtaken."""
        roster, rekeys = await self.restore(mesh.id)
        mesh.roster, mesh.rekeys, mesh.head, mesh.spare = roster, rekeys, None, None

    async def attestation(self, mesh: Mesh, digest: str, now: UnixMillis) -> KnownAttestation | None:
        """An attestation that was published in this mesh, from memory or from the store."""
        known = mesh.attestations.get(digest)
        if known is None and is_key(digest):
            raw = (await self._store.attestations([Digest(digest)])).get(Digest(digest))
            known = None if raw is None else _read_attestation(raw, mesh.id)
            if known is not None:
                mesh.remember(known, now)
        return known

    async def statements(self, mesh: Mesh, digests: set[str]) -> list[bytes]:
        """Attestations as they are pushed; those that nobody has any more are left out."""
        known = [digest for digest in digests if digest in mesh.attestations]
        missing = [Digest(digest) for digest in digests.difference(known)]
        fetched = await self._store.attestations(missing) if missing else {}
        return [mesh.attestations[digest].statement for digest in known] + list(fetched.values())

    async def _load(self, mesh_id: MeshId) -> Mesh | None:
        roster, rekeys = await self.restore(mesh_id)
        if roster.mesh is None:
            return None
        mesh = Mesh(mesh_id, roster, rekeys, Subscriptions(await self._store.subscriptions(mesh_id)))
        if self.revalidate is not None and not await self.revalidate(mesh):
            return None
        self._meshes[mesh_id] = mesh
        self._evict()
        return mesh

    async def restore(
        self, mesh: MeshId, length: int | None = None, also: Callable[[int, Sequence[bytes]], None] = lambda *_: None
    ) -> tuple[Roster, dict[PeerId, int]]:
        """A second copy of a roster from the store, with the last rekey of each peer.

        Args:
            length: How many entries it is to have; None for all.
            also: Gets each page as the store has it, with the seq at which it begins.
        """
        roster, rekeys = Roster(), dict[PeerId, int]()
        while length is None or roster.seq + 1 < length:
            first = roster.seq + 1
            raws = await self._store.entries(mesh, first, _PAGE if length is None else min(_PAGE, length - first))
            # A thread, so that a long log does not hold up the links of other meshes; a page at a time, so that it
            # is never in memory as a whole, which takes four times what it comes to as a roster.
            if len(raws) > _PAGE // 10:
                async with self._folding:
                    await asyncio.to_thread(_fold, roster, rekeys, raws)
            else:
                _fold(roster, rekeys, raws)
            also(first, raws)
            if len(raws) < _PAGE:
                break
        return roster, rekeys

    def _evict(self) -> None:
        """Forget meshes that nobody uses, the longest unused first; never the last one, which somebody asks for now."""
        idle = [mesh for mesh in self._meshes.values() if not mesh.links and not mesh.used]
        entries = sum(mesh.roster.seq + 1 for mesh in idle)
        for index, mesh in enumerate(idle[:-1]):
            if len(idle) - index <= MAX_IDLE_MESHES and entries <= MAX_IDLE_ENTRIES:
                return
            del self._meshes[mesh.id]
            entries -= mesh.roster.seq + 1


def _fold(roster: Roster, rekeys: dict[PeerId, int], raws: Sequence[bytes]) -> None:
    first, entries = roster.seq + 1, decode_entries(raws)
    roster.restore_more(entries)
    rekeys.update(rekeys_in(entries, first))


def rekeys_in(entries: Iterable[Entry], first_seq: int) -> dict[PeerId, int]:
    """Of each peer that has made a new box key in `entries` the seq of the last time."""
    # Canonical JSON: this text stands nowhere but in that operation.
    return {
        PeerId(msgspec.json.decode(entry.b)["by"]): seq
        for seq, entry in enumerate(entries, first_seq)
        if _REKEY in entry.b
    }


def decode_entries(raws: Iterable[bytes]) -> list[Entry]:
    """Entries as the store has them."""
    return [_decode_entry(raw) for raw in raws]


def _read_attestation(raw: bytes, mesh: MeshId) -> KnownAttestation | None:
    try:
        attestation = identity.open_attestation(decode_statement(raw))
    except (ClaudemeshError, msgspec.DecodeError):
        return None
    return KnownAttestation(attestation, raw) if attestation.mesh == mesh else None
