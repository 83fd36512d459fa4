"""Keeps meshes in memory where the store has them, when other nodes write too (docs/spec/cluster.md §4).

What is in memory is never the truth then. It is compared with the store when a hint says so, once in a while, and
wherever it decides something that an outdated copy would decide wrongly.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from claudemesh.broker.announcing import Announcer, Changing
from claudemesh.broker.directory import Directory, Mesh, decode_entries, decode_statement, encode_statement, rekeys_in
from claudemesh.broker.policy import Limits
from claudemesh.broker.store.base import HeadRow, MeshEnd, Store, Version
from claudemesh.broker.subscriptions import Subscriptions
from claudemesh.crypto.primitives import SigningKey
from claudemesh.errors import LocalError, RosterRefused
from claudemesh.protocol.heads import sign_head
from claudemesh.protocol.roster import Entry
from claudemesh.types import MeshId, UnixMillis

_ATTEMPTS: Final = 20
_FEW: Final = 100
"""More entries than this are folded anew, on another thread."""


class Following:
    """Brings meshes up to date."""

    def __init__(
        self,
        store: Store,
        directory: Directory,
        announcer: Announcer,
        key: SigningKey,
        clock: Callable[[], UnixMillis],
        limits: Limits,
    ) -> None:
        self._store = store
        self._directory = directory
        self._announcer = announcer
        self._key = key
        self._clock = clock
        self._limits = limits

    async def refresh(self, mesh: Mesh) -> bool:
        """Bring one mesh up to date; returns false when the store does not hold it any more.

        Raises:
            LocalError: The store fails.
        """
        async with mesh.appending:
            return await self.look(mesh)

    async def look(self, mesh: Mesh) -> bool:
        """As `refresh`, for a caller that holds the lock `appending` of the mesh."""
        for _ in range(_ATTEMPTS):
            end = (await self._store.mesh_ends([mesh.id])).get(mesh.id)
            if end is None:
                self._directory.forget(mesh.id)
                return False
            await self._follow(mesh, end)
            if mesh.roster.seq + 1 == end.version.length and await self._has_head(mesh, end):
                return True
        raise LocalError("journal_damaged", "a roster does not end where the store says")

    async def refresh_outdated(self, meshes: Iterable[Mesh]) -> None:
        """Bring those of `meshes` up to date that are not."""
        by_id = {mesh.id: mesh for mesh in meshes}
        ends = await self._store.mesh_ends(list(by_id)) if by_id else {}
        for mesh in by_id.values():
            end = ends.get(mesh.id)
            if end is None or end.version != version_of(mesh) or self._is_old(end.head):
                await self.refresh(mesh)

    async def _follow(self, mesh: Mesh, end: MeshEnd) -> None:
        """Take the entries and the subscriptions that others have stored."""
        have = mesh.roster.seq + 1
        if end.version.length < have or end.version.length - have > _FEW:
            await self._start_over(mesh, end)
        elif end.version.length > have:
            await self._take_entries(mesh, have, end)
        elif end.head is not None and (mesh.head_seq != end.head.seq or mesh.head_at != end.head.at):
            if _digest_of(end.head) == mesh.roster.head:
                _keep(mesh, end.head)
            else:  # the store was restored, and has grown to the same length since
                await self._start_over(mesh, end)
        if end.version.wishes != mesh.wishes:
            mesh.subscriptions = Subscriptions(await self._store.subscriptions(mesh.id))
            mesh.wishes = end.version.wishes

    async def _take_entries(self, mesh: Mesh, have: int, end: MeshEnd) -> None:
        wanted = end.version.length - have
        entries = decode_entries(await self._store.entries(mesh.id, have, wanted))
        if len(entries) < wanted:
            return  # they were deleted meanwhile, which the next look finds
        changing = Changing(mesh, entries)
        try:
            for entry in entries:
                mesh.roster.apply(entry)
        except RosterRefused:  # the store was restored, and has grown otherwise since
            await self._start_over(mesh, end)
            return
        mesh.spare = None
        mesh.rekeys.update(rekeys_in(entries, have))
        if end.head is not None:
            _keep(mesh, end.head)
        self._announcer.announce(mesh, entries, changing.result())

    async def _start_over(self, mesh: Mesh, end: MeshEnd) -> None:
        """Many entries are new, or the store has lost some: read the whole roster."""
        have = mesh.roster.seq + 1
        entries: list[Entry] = []

        def note(first: int, raws: Sequence[bytes]) -> None:
            entries.extend(decode_entries(raws[max(0, have - first) :]))

        roster, rekeys = await self._directory.restore(mesh.id, end.version.length, note)
        if roster.seq + 1 < end.version.length:
            return  # it was deleted meanwhile, which the next look finds
        changing = Changing(mesh, entries)
        mesh.roster, mesh.rekeys, mesh.spare = roster, rekeys, None
        if end.head is not None:
            _keep(mesh, end.head)
        self._announcer.announce(mesh, entries, changing.result())

    async def _has_head(self, mesh: Mesh, end: MeshEnd) -> bool:
        """Whether the head of the roster in memory is signed, and not long ago; if not, one node signs it anew."""
        roster = mesh.roster
        if end.head is not None and not self._is_old(end.head):
            return True
        now = self._clock()
        signed = sign_head(mesh.id, roster.seq, roster.head, now, self._key)
        row = HeadRow(roster.seq, now, encode_statement(signed))
        kept = await self._store.renew_head(mesh.id, row, UnixMillis(now - self._limits.head_interval_ms))
        if kept is None or kept.seq != roster.seq:
            return False  # somebody has appended meanwhile
        _keep(mesh, kept)
        return True

    def _is_old(self, head: HeadRow | None) -> bool:
        return head is None or head.at < self._clock() - self._limits.head_interval_ms


def version_of(mesh: Mesh) -> Version:
    """At which version a mesh is in memory."""
    return Version(mesh.roster.seq + 1, mesh.wishes)


def versions_of(meshes: Iterable[Mesh]) -> dict[MeshId, Version]:
    """At which versions meshes are in memory."""
    return {mesh.id: version_of(mesh) for mesh in meshes}


def _digest_of(head: HeadRow) -> str:
    """Of the entry that a signed head of ours names."""
    digest: str = msgspec.json.decode(decode_statement(head.statement).b)["head"]
    return digest


def _keep(mesh: Mesh, head: HeadRow) -> None:
    mesh.keep_head(decode_statement(head.statement), head.seq, head.at)
