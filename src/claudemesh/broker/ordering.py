"""Orders roster entries by compare-and-swap and hands them out (docs/spec/broker.md §3).

The broker checks what every peer checks and decides nothing but the order. An entry is committed before
the roster in memory moves, so neither a signed head nor an admission ever runs ahead of the store.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Literal, NoReturn

import msgspec

from claudemesh.broker.announcing import Announcer, Changing
from claudemesh.broker.directory import Directory, Mesh, decode_entries, encode_statement
from claudemesh.broker.following import Following
from claudemesh.broker.hints import Hints
from claudemesh.broker.holdings import Holdings
from claudemesh.broker.metrics import Metrics
from claudemesh.broker.policy import Limits
from claudemesh.broker.pushing import MAX_PAGE_BYTES, log_frame
from claudemesh.broker.store.base import UNCERTAIN, HeadRow, Store
from claudemesh.crypto.primitives import SigningKey
from claudemesh.crypto.statements import Statement
from claudemesh.errors import BadSignature, LocalError, Malformed, Refused, RosterRefused
from claudemesh.protocol import limits
from claudemesh.protocol.heads import sign_head
from claudemesh.protocol.roster import Checked, Entry, Roster, entry_digest
from claudemesh.types import BrokerId, Digest, MeshId, PeerId, UnixMillis

Uploader = Literal["member", "claimant", "founder"]
_ALWAYS: Final = ("revoke", "uninvite", "recover", "broker")
"""Operations for which there is room beyond `roster_entries`: whoever fills a roster must not be safe in it."""
_encode_entry: Final = msgspec.json.Encoder().encode


class Ordering:
    """The sequencer of every mesh of this broker."""

    def __init__(
        self,
        store: Store,
        directory: Directory,
        key: SigningKey,
        mesh_creation: Literal["open", "closed"],
        limits: Limits,
        metrics: Metrics,
        clock: Callable[[], UnixMillis],
        announcer: Announcer,
        following: Following | None,
        hints: Hints,
    ) -> None:
        self._store = store
        self._directory = directory
        self._key = key
        self._broker = BrokerId(key.public)
        self._mesh_creation = mesh_creation
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._announcer = announcer
        self._following = following
        self._hints = hints
        self.holdings = Holdings(limits)
        self._doubtful: set[Mesh] = set()
        """Where the answer to a commit was lost: the store may hold more than the roster in memory."""

    async def append(self, mesh: Mesh, entries: Sequence[Entry], uploader: Uploader, actor: PeerId | None) -> int:
        """Append all of `entries` or none.

        Returns:
            The seq of the last one.

        Raises:
            Refused: `cas` the roster ends elsewhere; `invalid` with the rule that is broken; `limit` the roster is as
                long as this broker lets it become, or all together are.
            LocalError: The store failed; nothing was appended.
        """
        async with mesh.appending:
            if (self._following is not None or mesh in self._doubtful) and not await self._look(mesh):
                raise Refused("unknown_mesh")
            changing = Changing(mesh, entries)
            if len(entries) == 1:
                await self._append_one(mesh, entries[0], uploader, actor)
            else:
                await self._append_many(mesh, entries, uploader, actor)
            seq = mesh.roster.seq
            self._announcer.announce(mesh, entries, changing.result())
        self._hints.moved(mesh.id)
        self._metrics.entries_appended += len(entries)
        return seq

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
            Refused: `mesh_creation_closed`, `rate_limited`, `limit`, `cas`, or `invalid`.
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
        if not await self._commit(mesh, entries, mesh.roster.head, -1, None, self._holds(mesh, checked)):
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

    async def settle_doubts(self) -> None:
        """Once a second: see what became of entries whose commit was not answered, and act on those that are stored.

        Raises:
            LocalError: The store fails still.
        """
        for mesh in list(self._doubtful):
            async with mesh.appending:
                await self._look(mesh)

    def head(self, mesh: Mesh) -> Statement:
        """The signed head, not older than a minute."""
        return self._announcer.head(mesh)

    async def _append_one(self, mesh: Mesh, entry: Entry, uploader: Uploader, actor: PeerId | None) -> None:
        roster = mesh.roster
        checked = self._check(roster, entry, uploader, self._clock(), first=True)
        if not await self._commit(mesh, [entry], checked.digest, roster.seq, actor, self._holds(mesh, [checked])):
            await self._overtaken(mesh)
        roster.advance(checked)
        mesh.spare = None
        self._note(mesh, [checked])

    async def _append_many(
        self, mesh: Mesh, entries: Sequence[Entry], uploader: Uploader, actor: PeerId | None
    ) -> None:
        """On a copy, so that nobody sees a roster that is not stored yet; a mesh that nobody is served needs none."""
        now = self._clock()
        if not (mesh.serves(self._broker) or mesh.has_moved(self._broker) or _moves(entries)):
            await self._append_in_place(mesh, entries, uploader, actor)
            return
        self._check(mesh.roster, entries[0], uploader, now, first=True)
        copy = mesh.spare or (await self._directory.restore(mesh.id))[0]
        mesh.spare = None  # until it is known to be right again
        checked = self._fold(copy, entries, uploader, now)
        if not await self._commit(mesh, entries, copy.head, mesh.roster.seq, actor, self._holds(mesh, checked)):
            await self._overtaken(mesh)
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
            stored = await self._commit(mesh, entries, mesh.roster.head, seq, actor, self._holds(mesh, checked))
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
        if checked.seq >= self._limits.roster_entries and checked.op not in _ALWAYS:
            raise Refused("limit", "roster_entries")
        self.holdings.require_room(checked.op, checked.seq)
        at = checked.body["at"]
        if at > now + limits.CLOCK_SKEW_MS:
            raise Refused("invalid", "future_entry")
        served = roster.broker == self._broker
        if served and uploader != "member" and at < now - limits.CLOCK_SKEW_MS:
            # Back-dating would bring an expired link to life again in a roster where nothing has happened since.
            raise Refused("invalid", "time_back the entry is dated before now; check the clock")
        return checked

    async def _commit(
        self, mesh: Mesh, entries: Sequence[Entry], head: Digest, seq: int, actor: PeerId | None, served: bool
    ) -> bool:
        """Store entries after `seq`, and with them the only signed head that there will be for where they end.

        When this returns True, the roster in memory has to be moved before anything else is awaited.
        """
        raws, now, end = [_encode_entry(entry) for entry in entries], self._clock(), seq + len(entries)
        signed = sign_head(mesh.id, end, head, now, self._key)
        row = HeadRow(end, now, encode_statement(signed))
        try:
            stored = await self._store.append_entries(mesh.id, seq, raws, now, actor=actor, served=served, head=row)
        except LocalError as error:
            if error.code in UNCERTAIN and seq >= 0:  # a genesis is looked for in the store in any case
                self._doubtful.add(mesh)
            raise
        if stored:
            mesh.keep_head(signed, end, now)
            self.holdings.added(len(entries), is_new=seq < 0)
        return stored

    async def _overtaken(self, mesh: Mesh) -> NoReturn:
        """Somebody else appended first; or this broker, by a commit whose answer was lost."""
        await self._look(mesh)
        raise Refused("cas", f"the roster ends at {mesh.roster.seq}")

    async def _look(self, mesh: Mesh) -> bool:
        """Bring a mesh up to date with the store, as `Following.look`, also where nobody else writes."""
        if self._following is not None:
            is_held = await self._following.look(mesh)
        else:
            is_held = await self._look_alone(mesh)
        self._doubtful.discard(mesh)
        return is_held

    async def _look_alone(self, mesh: Mesh) -> bool:
        have = mesh.roster.seq + 1
        entries = decode_entries(await self._store.entries(mesh.id, have, limits.MAX_ENTRIES_PER_FRAME))
        changing = Changing(mesh, entries)
        await self._directory.reload(mesh)
        if entries:
            self._announcer.announce(mesh, entries, changing.result())
        return mesh.roster.seq >= 0

    def _holds(self, mesh: Mesh, checked: Sequence[Checked]) -> bool:
        """Whether the roster names this broker, or named it once: then the log is kept for those who ask."""
        named = any(one.op in ("genesis", "broker") and one.body["bk"] == self._broker for one in checked)
        return named or any(key == self._broker for _, key in mesh.roster.broker_changes)

    def _note(self, mesh: Mesh, checked: Sequence[Checked]) -> None:
        for one in checked:
            if one.op == "rekey":
                mesh.rekeys[PeerId(one.body["by"])] = one.seq


def _moves(entries: Sequence[Entry]) -> bool:
    return any('"op":"broker"' in entry.b for entry in entries)


def _refusal(error: Malformed | RosterRefused | BadSignature) -> Refused:
    return Refused("invalid", f"{error.code} {error.detail}".strip())
