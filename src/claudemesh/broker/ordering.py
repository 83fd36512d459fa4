"""Orders roster entries by compare-and-swap and hands them out (docs/spec/broker.md §3).

The broker checks what every peer checks and decides nothing but the order. An entry is committed before
the roster in memory moves, so neither a signed head nor an admission ever runs ahead of the store.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from claudemesh.broker.directory import Directory, Mesh, encode_statement
from claudemesh.broker.metrics import Metrics
from claudemesh.broker.policy import Limits
from claudemesh.broker.pushing import MAX_PAGE_BYTES, log_frame
from claudemesh.broker.store.base import Store
from claudemesh.broker.subscriptions import is_member
from claudemesh.crypto.primitives import SigningKey
from claudemesh.crypto.statements import Statement
from claudemesh.errors import BadSignature, LocalError, Malformed, Refused, RosterRefused
from claudemesh.protocol import limits
from claudemesh.protocol.messages import Closing
from claudemesh.protocol.roster import Checked, Entry, Roster, entry_digest
from claudemesh.transport.frames import POLICY_VIOLATION
from claudemesh.types import BrokerId, ChannelId, MeshId, PeerId, UnixMillis

ANNOUNCE_DELAY_S: Final = 0.01
"""Entries that are appended this close together are announced in one frame."""
MOVE_GRACE_MS: Final = 30_000
"""How long a link of a mesh that has moved may go on fetching its mailbox."""

Uploader = Literal["member", "claimant", "founder"]
_encode_entry: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Change:
    """What an append did, for those who have to act on it."""

    mesh: Mesh
    removed: tuple[PeerId, ...]
    """Peers that are not active any more."""
    left: tuple[tuple[PeerId, ChannelId], ...] = ()
    """Peers that are not in a channel any more."""


class Ordering:
    """The sequencer of every mesh of this broker."""

    def __init__(
        self,
        store: Store,
        directory: Directory,
        key: SigningKey,
        mesh_creation: Literal["open", "closed"],
        grants: Limits,
        metrics: Metrics,
        clock: Callable[[], UnixMillis],
        on_change: Callable[[Change], None],
    ) -> None:
        self._store = store
        self._directory = directory
        self._key = key
        self._broker = BrokerId(key.public)
        self._mesh_creation = mesh_creation
        self._grants = grants
        self._metrics = metrics
        self._clock = clock
        self._on_change = on_change

    async def append(self, mesh: Mesh, entries: Sequence[Entry], uploader: Uploader, actor: PeerId | None) -> int:
        """Append all of `entries` or none.

        Returns:
            The seq of the last one.

        Raises:
            Refused: `cas` the roster ends elsewhere; `invalid` with the rule that is broken.
            LocalError: The store failed; nothing was appended.
        """
        async with mesh.appending:
            before = set(mesh.roster.members) if _removes(entries) else set()
            active = {peer for peer in before if mesh.roster.is_active(peer)}
            if len(entries) == 1:
                await self._append_one(mesh, entries[0], uploader, actor)
            else:
                await self._append_many(mesh, entries, uploader, actor)
            removed = tuple(peer for peer in active if not mesh.roster.is_active(peer))
            left = tuple(pair for pair in _departures(entries) if not is_member(mesh.roster, pair[1], pair[0]))
            self._announce_soon(mesh, [_encode_entry(entry) for entry in entries])
        self._metrics.entries_appended += len(entries)
        self._on_change(Change(mesh, removed, left))
        return mesh.roster.seq

    async def admit(self, mesh: Mesh, entries: Sequence[Entry], claimed: str) -> int:
        """Append the one entry that the holder of a claimed key may append; raises as `append`.

        Args:
            claimed: The key of an invite, which may admit; or the recovery key of the mesh, which may recover it.
        """
        op = "recover" if claimed == mesh.roster.recovery else "admit"
        if len(entries) != 1 or f'"by":"{claimed}"' not in entries[0].b or f'"op":"{op}"' not in entries[0].b:
            raise Refused("invalid", "only one entry by the claimed key")
        return await self.append(mesh, entries, "claimant", None)

    async def found(self, entries: Sequence[Entry], may_create: Callable[[], int]) -> tuple[Mesh, int]:
        """Take the genesis of a mesh, or find the mesh when it is held already.

        Args:
            may_create: Asked only when the mesh is new; returns after how many milliseconds to come back.

        Returns:
            The mesh and the seq at which it ends here: the uploader goes on after that.

        Raises:
            Refused: `mesh_creation_closed`, `rate_limited`, `cas`, or `invalid`.
            LocalError: The store failed; nothing was stored.
        """
        try:
            mesh_id = MeshId(entry_digest(entries[0]))
        except Malformed as error:
            raise _refusal(error) from error
        held = await self._directory.find(mesh_id)
        if held is not None:
            return held, held.roster.seq
        if self._mesh_creation == "closed":
            raise Refused("mesh_creation_closed")
        mesh = Mesh(mesh_id, Roster(), {})
        checked = self._fold(mesh.roster, entries, "founder", self._clock())
        wait_ms = may_create()
        if wait_ms:
            raise Refused("rate_limited", retry_after_ms=wait_ms)
        if not await self._commit(mesh, entries, -1, None, self._holds(mesh, checked)):
            raise Refused("cas")
        self._note(mesh, checked)
        self._metrics.entries_appended += len(entries)
        self._directory.add(mesh)
        return mesh, mesh.roster.seq

    async def page(self, mesh: Mesh, seq: int, rid: int | None) -> tuple[bytes, int]:
        """One `log` frame from `seq` on, and the seq that the next one starts with."""
        end = mesh.roster.seq
        limit = min(limits.MAX_ENTRIES_PER_FRAME, end - seq + 1)
        raws = await self._store.entries(mesh.id, seq, limit) if limit > 0 else []
        if limit > 0 and not raws:
            raise LocalError("journal_damaged", "roster entries are missing")
        size, count = 0, 0
        for raw in raws:
            if count and size + len(raw) > MAX_PAGE_BYTES:
                break
            size, count = size + len(raw), count + 1
        following = seq + count
        # The head is signed for what the page leads to; entries that came meanwhile are announced after it.
        more = following <= mesh.roster.seq
        sth = None if more else encode_statement(self.head(mesh))
        return log_frame(seq, raws[:count], rid, more, sth), following

    async def pages(self, mesh: Mesh, seq: int) -> AsyncIterator[bytes]:
        """Every `log` frame from `seq` on; at least one. No entry is missing when the last one was taken."""
        while True:
            frame, seq = await self.page(mesh, seq, None)
            yield frame
            if seq > mesh.roster.seq:
                return

    def head(self, mesh: Mesh) -> Statement:
        """The signed head, not older than a minute."""
        return mesh.signed_head(self._key, self._clock(), self._grants.head_interval_ms)

    async def _append_one(self, mesh: Mesh, entry: Entry, uploader: Uploader, actor: PeerId | None) -> None:
        roster = mesh.roster
        checked = self._check(roster, entry, uploader, self._clock(), first=True)
        if not await self._commit(mesh, [entry], roster.seq, actor, self._holds(mesh, [checked])):
            await self._directory.reload(mesh)
            raise Refused("cas")
        roster.advance(checked)
        mesh.spare = None
        self._note(mesh, [checked])

    async def _append_many(
        self, mesh: Mesh, entries: Sequence[Entry], uploader: Uploader, actor: PeerId | None
    ) -> None:
        """On a copy, so that nobody sees a roster that is not stored yet; a mesh that is not served needs none."""
        now = self._clock()
        if not mesh.serves(self._broker):
            await self._append_in_place(mesh, entries, uploader, actor)
            return
        self._check(mesh.roster, entries[0], uploader, now, first=True)
        copy = mesh.spare or (await self._directory.restore(mesh.id))[0]
        mesh.spare = None  # until it is known to be right again
        checked = self._fold(copy, entries, uploader, now)
        if not await self._commit(mesh, entries, mesh.roster.seq, actor, self._holds(mesh, checked)):
            await self._directory.reload(mesh)
            raise Refused("cas")
        mesh.roster, last = copy, mesh.roster
        for one in checked:
            last.advance(one)
        mesh.spare = last
        self._note(mesh, checked)

    async def _append_in_place(
        self, mesh: Mesh, entries: Sequence[Entry], uploader: Uploader, actor: PeerId | None
    ) -> None:
        seq = mesh.roster.seq
        try:
            checked = self._fold(mesh.roster, entries, uploader, self._clock())
            stored = await self._commit(mesh, entries, seq, actor, self._holds(mesh, checked))
        except (Refused, LocalError):
            if mesh.roster.seq != seq:
                await self._directory.reload(mesh)
            raise
        if not stored:
            await self._directory.reload(mesh)
            raise Refused("cas")
        self._note(mesh, checked)

    def _fold(self, roster: Roster, entries: Sequence[Entry], uploader: Uploader, now: UnixMillis) -> list[Checked]:
        applied = []
        for index, entry in enumerate(entries):
            checked = self._check(roster, entry, uploader, now, first=index == 0)
            roster.advance(checked)
            applied.append(checked)
        return applied

    def _check(self, roster: Roster, entry: Entry, uploader: Uploader, now: UnixMillis, *, first: bool) -> Checked:
        """What every peer checks, and the date, which only the broker can compare with a clock."""
        try:
            checked = roster.check(entry, now)
        except RosterRefused as error:
            if first and error.code in ("seq", "prev") and roster.seq >= 0:
                raise Refused("cas", f"the roster ends at {roster.seq}") from error
            raise _refusal(error) from error
        except (Malformed, BadSignature) as error:
            raise _refusal(error) from error
        at = checked.body["at"]
        if at > now + limits.CLOCK_SKEW_MS:
            raise Refused("invalid", "future_entry")
        served = roster.broker == self._broker
        if served and uploader != "member" and at < now - limits.CLOCK_SKEW_MS:
            # Back-dating would bring an expired link to life again in a roster where nothing has happened since.
            raise Refused("invalid", "time_back the entry is dated before now; check the clock")
        return checked

    async def _commit(self, mesh: Mesh, entries: Sequence[Entry], seq: int, actor: PeerId | None, served: bool) -> bool:
        raws = [_encode_entry(entry) for entry in entries]
        return await self._store.append_entries(mesh.id, seq, raws, self._clock(), actor=actor, served=served)

    def _holds(self, mesh: Mesh, checked: Sequence[Checked]) -> bool:
        """Whether the roster names this broker, or named it once: then the log is kept for those who ask."""
        named = any(one.op in ("genesis", "broker") and one.body["bk"] == self._broker for one in checked)
        return named or any(key == self._broker for _, key in mesh.roster.broker_changes)

    def _note(self, mesh: Mesh, checked: Sequence[Checked]) -> None:
        for one in checked:
            if one.op == "rekey":
                mesh.rekeys[PeerId(one.body["by"])] = one.seq

    def _announce_soon(self, mesh: Mesh, raws: list[bytes]) -> None:
        if not mesh.unannounced:
            asyncio.get_running_loop().call_later(ANNOUNCE_DELAY_S, self._announce, mesh)
        mesh.unannounced += raws

    def _announce(self, mesh: Mesh) -> None:
        raws, mesh.unannounced = mesh.unannounced, []
        if not mesh.links:
            return
        head = self.head(mesh)
        frames = _split(mesh.roster.seq - len(raws) + 1, raws, encode_statement(head))
        for link in list(mesh.links.values()):
            for frame in frames:
                link.outlet.write(frame)
            link.seen_head = head
        if mesh.has_moved(self._broker):
            self._leave(mesh)

    def _leave(self, mesh: Mesh) -> None:
        """Every link of a mesh that has moved ends, as soon as its mailbox is empty."""
        for link in list(mesh.links.values()):
            link.leaving_at = UnixMillis(self._clock() + MOVE_GRACE_MS)
        self._on_change(Change(mesh, ()))


def close_removed(change: Change) -> None:
    """End the links of peers that were revoked."""
    for link in list(change.mesh.links.values()):
        if link.peer in change.removed:
            link.close(Closing(code="revoked"), POLICY_VIOLATION, audit_reason="revoked")


def _split(seq: int, raws: Sequence[bytes], sth: bytes) -> list[bytes]:
    frames = []
    for start in range(0, len(raws), limits.MAX_ENTRIES_PER_FRAME):
        page = raws[start : start + limits.MAX_ENTRIES_PER_FRAME]
        more = start + len(page) < len(raws)
        frames.append(log_frame(seq + start, page, None, more, None if more else sth))
    return frames


def _removes(entries: Sequence[Entry]) -> bool:
    return any('"op":"revoke"' in entry.b or '"op":"recover"' in entry.b for entry in entries)


def _departures(entries: Sequence[Entry]) -> list[tuple[PeerId, ChannelId]]:
    bodies = [msgspec.json.decode(entry.b) for entry in entries if '"op":"chan_del"' in entry.b]
    return [(PeerId(body["who"]), ChannelId(body["chan"])) for body in bodies]


def _refusal(error: Malformed | RosterRefused | BadSignature) -> Refused:
    return Refused("invalid", f"{error.code} {error.detail}".strip())
