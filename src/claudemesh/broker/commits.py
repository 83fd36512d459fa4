"""One commit of the exchange: what is stored together, and its answers and pushes (docs/spec/broker.md §4)."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from claudemesh.broker.acceptance import Acceptances
from claudemesh.broker.directory import KnownAttestation, Mesh
from claudemesh.broker.fan_out import Delivered, PendingFanOut, Routes, mailboxes_of
from claudemesh.broker.following import Following, versions_of
from claudemesh.broker.leasing import Leasing
from claudemesh.broker.links import AcceptedPostRow, AcceptedRow, Link
from claudemesh.broker.metrics import Metrics
from claudemesh.broker.policy import Limits, Quota
from claudemesh.broker.pushing import delivery, push_frames
from claudemesh.broker.routing import Mailbox
from claudemesh.broker.sharing import Sharing
from claudemesh.broker.shedding import Shedding
from claudemesh.broker.store.base import (
    Acknowledgement,
    FannedOut,
    Notice,
    Outdated,
    Store,
    Stored,
    Submission,
    Version,
)
from claudemesh.errors import ClaudemeshError, LocalError, Refused
from claudemesh.protocol.messages import Post, Send
from claudemesh.protocol.messages import Refused as RefusedMessage
from claudemesh.types import Digest, MeshId, PeerId, UnixMillis

STORAGE_RETRY_MS: Final = 5_000
MAILBOX_RETRY_MS: Final = 60_000
_ATTEMPTS: Final = 20
"""How often a commit is tried that other nodes overtake; entries come singly, commits take milliseconds."""

Acks = dict[tuple[Mesh, PeerId], list[int]]
"""Rows that were acknowledged, by mailbox."""


@dataclass(slots=True, eq=False)
class Pending:
    """One admitted envelope on its way into the store."""

    link: Link
    mesh: Mesh
    mailbox: Mailbox
    submission: Submission
    attestation: KnownAttestation
    leased: Link | None
    roster_seq: int
    """How far its sender knew the roster when it was sealed."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is stored in one commit: direct messages, then what goes into many mailboxes."""

    letters: Sequence[Pending] = ()
    fan_outs: Sequence[PendingFanOut] = ()
    acks: Acks = field(default_factory=dict)
    """Deleted in the same commit."""
    since: float | None = None
    """When the first envelope of it was admitted, by `time.perf_counter`; None where there is none."""

    def __bool__(self) -> bool:
        return bool(self.letters or self.fan_outs or self.acks)


@dataclass(frozen=True, slots=True)
class Committed:
    """What the store answered to a batch; whatever it could not store is answered already."""

    letters: Sequence[tuple[Pending, Stored]] = ()
    fan_outs: Sequence[tuple[PendingFanOut, FannedOut]] = ()
    undeleted: Acks = field(default_factory=dict)
    """Acknowledgements that the store could not carry out."""

    def __bool__(self) -> bool:
        return bool(self.letters or self.fan_outs)


class Commits:
    """Carries out batches."""

    def __init__(
        self,
        store: Store,
        leasing: Leasing,
        acceptances: Acceptances,
        limits: Limits,
        metrics: Metrics,
        clock: Callable[[], UnixMillis],
        shedding: Shedding,
        following: Following | None,
        notice: Callable[[str], Notice],
        sharing: Sharing,
    ) -> None:
        """`following` is there where other nodes may change what an envelope was admitted under."""
        self._store = store
        self._leasing = leasing
        self._following = following
        self._sharing = sharing
        self._routes = Routes(leasing, limits, notice)
        self._acceptances = acceptances
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._shedding = shedding
        self.is_routing = False
        """Fan-outs of the batch that has begun have no routes yet: nothing that comes now may get one before them."""

    async def store(self, batch: Batch) -> Committed:
        """Commit one batch; what the store refuses is answered here, the rest is returned."""
        now, started = self._clock(), time.perf_counter()
        try:
            quotas = await self._quotas(batch)
        except LocalError as error:
            self._metrics.store_failures += 1
            self._fail(batch.letters)
            self._fail_fan_outs(batch.fan_outs, error)
            batch, quotas = Batch(acks=batch.acks), {}
        letters = self._within_quota(batch.letters, quotas)
        # Deletions first: the pages that they free are written anew by the appends of the same commit.
        undeleted, stored, fanned_out = await asyncio.gather(
            self._delete(batch.acks, now), self._append(letters, now), self._fan_out(batch.fan_outs, quotas, now)
        )
        self._metrics.commits += 1
        ended = time.perf_counter()
        self._metrics.commit_seconds += ended - started
        if batch.since is not None:
            self._shedding.committed(ended - batch.since)
        return Committed(stored, fanned_out, undeleted)

    def answer(self, committed: Committed) -> None:
        """Push what was leased, and state what is stored."""
        pushes: dict[Link, list[Delivered]] = {}
        for pending, stored in committed.letters:
            sender, submission = pending.link, pending.submission
            sender.unanswered -= 1
            row = AcceptedRow(stored.audit_hash, submission.id, stored.audit_n, submission.to)
            self._acceptances.add(sender, row)
            self._metrics.envelopes_duplicate += stored.duplicate
            self._route(pending, stored, pushes)
        for one, fanned_out in committed.fan_outs:
            self._state(one, fanned_out)
            self._routes.finish(one, fanned_out, pushes)
        self._metrics.envelopes_accepted += len(committed.letters) + len(committed.fan_outs)
        for link, rows in pushes.items():
            self._push(link, rows)
        self._acceptances.settle()

    async def _append(self, letters: Sequence[Pending], now: UnixMillis) -> list[tuple[Pending, Stored]]:
        try:
            for _ in range(_ATTEMPTS):
                expected = self._versions(letter.mesh for letter in letters)
                try:
                    answers = await self._store.append([letter.submission for letter in letters], now, expected)
                except Outdated as outdated:
                    await self._look_again((letter.mesh for letter in letters), outdated)
                    letters = self._still_deliverable(letters)
                else:
                    return list(zip(letters, answers, strict=True))
        except LocalError as error:
            self._leasing.doubt([letter.leased for letter in letters if letter.leased is not None], error)
        self._metrics.store_failures += 1
        self._fail(letters)
        return []

    async def _fan_out(
        self, fan_outs: Sequence[PendingFanOut], quotas: dict[Mailbox, Quota], now: UnixMillis
    ) -> list[tuple[PendingFanOut, FannedOut]]:
        """Nothing is awaited between the look at the roster and the call of the store."""
        allowed = self._still_allowed(fan_outs)
        failure = LocalError("disk", "other nodes change the mesh faster than a commit takes")
        try:
            for _ in range(_ATTEMPTS):
                expected = self._versions(one.mesh for one in allowed)
                rows = {one: self._routes.open(one, quotas) for one in allowed}
                allowed = [one for one in allowed if self._finds_room(one, now)]
                self.is_routing = False
                try:
                    answers = await self._store.fan_out([rows[one] for one in allowed], now, expected)
                except Outdated as outdated:
                    self.is_routing = True
                    self._undo(allowed)
                    await self._look_again((one.mesh for one in allowed), outdated)
                    allowed, quotas = self._still_allowed(allowed), {}
                else:
                    return list(zip(allowed, answers, strict=True))
        except LocalError as error:
            failure = error
            self._leasing.doubt([link for one in allowed for _, link in one.routes if link is not None], error)
        self._metrics.store_failures += 1
        self._undo(allowed)
        self._fail_fan_outs(allowed, failure)
        return []

    def _versions(self, meshes: Iterable[Mesh]) -> dict[MeshId, Version] | None:
        """At which versions the store has to have these meshes; None where nobody else writes."""
        return None if self._following is None else versions_of(meshes)

    async def _look_again(self, meshes: Iterable[Mesh], outdated: Outdated) -> None:
        self._metrics.commits_outdated += 1
        if self._following is not None:
            for mesh in {mesh for mesh in meshes if mesh.id in outdated.meshes}:
                await self._following.refresh(mesh)

    def _undo(self, fan_outs: Sequence[PendingFanOut]) -> None:
        for one in fan_outs:
            self._routes.undo(one)

    async def _delete(self, acks: Acks, now: UnixMillis) -> Acks:
        """Delete acknowledged rows; returns those that the store cannot delete now."""
        try:
            await self._store.acknowledge_many(
                [Acknowledgement(mesh=mesh.id, peer=peer, qs=qs) for (mesh, peer), qs in acks.items()], now
            )
        except LocalError:
            self._metrics.store_failures += 1
            return acks
        return {}

    async def _quotas(self, batch: Batch) -> dict[Mailbox, Quota]:
        """What there is room for in every mailbox that the batch goes into, and in its mesh."""
        limits, coming = self._limits, len(batch.letters) + len(batch.fan_outs)
        quotas: dict[Mailbox, Quota] = {}
        by_mesh: dict[MeshId, list[Mailbox]] = {}
        for mailbox in {letter.mailbox for letter in batch.letters} | mailboxes_of(batch.fan_outs):
            by_mesh.setdefault(mailbox.mesh, []).append(mailbox)
        for mesh, mailboxes in by_mesh.items():
            all_used = await self._store.mesh_usage(mesh)
            whole = Quota(limits.mesh_rows - all_used.rows, limits.mesh_bytes - all_used.size)
            usages = await self._store.mailbox_usages(mesh, [mailbox.peer for mailbox in mailboxes])
            for mailbox, used in zip(mailboxes, usages, strict=True):
                # Those who fetch are reached also when a member has filled the mailboxes of all who are away.
                own = Quota(limits.reserved_rows - used.rows, limits.reserved_bytes - used.size)
                senders = self._sharing.senders(mesh, mailbox.peer, used, coming)
                left = (limits.mailbox_rows - used.rows, limits.mailbox_bytes - used.size)
                quotas[mailbox] = Quota(*left, whole, own, senders)
        return quotas

    def _within_quota(self, letters: Sequence[Pending], quotas: dict[Mailbox, Quota]) -> list[Pending]:
        """Refuse what its mailbox has no room for, or whose sender or recipient was revoked meanwhile."""
        admitted = []
        for letter in letters:
            roster = letter.mesh.roster
            if not roster.is_active(letter.mailbox.peer) or not roster.is_active(letter.link.peer):
                self._reject(letter, "unknown_peer", None)
            elif not quotas[letter.mailbox].take(letter.submission.size, letter.link.peer):
                self._reject(letter, "mailbox_full", MAILBOX_RETRY_MS)
            else:
                admitted.append(letter)
        return admitted

    def _still_deliverable(self, letters: Sequence[Pending]) -> list[Pending]:
        """Refuse what another node's entries have overtaken."""
        admitted = []
        for letter in letters:
            roster, to = letter.mesh.roster, letter.mailbox.peer
            if not roster.is_active(letter.link.peer) or not roster.is_active(to):
                self._reject(letter, "unknown_peer", None)
            elif letter.mesh.rekeys.get(to, -1) > letter.roster_seq:
                self._reject(letter, "stale_roster", None)
            else:
                admitted.append(letter)
        return admitted

    def _still_allowed(self, fan_outs: Sequence[PendingFanOut]) -> list[PendingFanOut]:
        """Refuse what was overtaken by a change of its channel's members."""
        admitted = []
        for one in fan_outs:
            refusal = one.recheck()
            if refusal is None:
                admitted.append(one)
            else:
                self._reject_fan_out(one, refusal, refusal.code, refusal.detail, None)
        return admitted

    def _finds_room(self, one: PendingFanOut, now: UnixMillis) -> bool:
        """Refuse a post that all would miss; each notice that its sender gets counts as a message of its link."""
        if one.kind == "post" and one.missed and not one.routes:
            self._reject_fan_out(one, Refused("mailbox_full"), "mailbox_full", "", MAILBOX_RETRY_MS)
            return False
        if one.notices:
            one.link.messages.charge(now, len(one.notices))
        return True

    def _state(self, one: PendingFanOut, stored: FannedOut) -> None:
        """Answer who sent a post or an epoch."""
        self._metrics.envelopes_duplicate += stored.duplicate
        if not stored.duplicate:
            for _ in one.missed:
                self._metrics.count_refusal("mailbox_full", one.mesh.id, one.link.peer)
        one.settle()
        if one.kind == "post":
            one.link.unanswered -= 1
            row = AcceptedPostRow(one.channel, stored.audit_hash, one.id, stored.audit_n)
            self._acceptances.add(one.link, row)

    def _route(self, pending: Pending, stored: Stored, pushes: dict[Link, list[Delivered]]) -> None:
        link = pending.leased
        if link is not None and stored.leased and not link.closed:
            link.window.fill(stored.q, pending.submission.size)
            row = delivery(stored.q, stored.accepted_at, "dm", pending.submission.payload)
            pushes.setdefault(link, []).append((pending.attestation, row))
            return
        if link is not None and stored.leased:
            self._leasing.returned(link)
        self._undo_route(pending)
        if pending.submission.not_before is not None:
            self._leasing.scheduled()
        else:
            self._leasing.waits(pending.mesh, pending.mailbox)

    def _push(self, link: Link, rows: list[Delivered]) -> None:
        known = {one.attestation.digest: one.statement for one, _ in rows}
        new = link.unseen(set(known))
        self._metrics.envelopes_pushed += len(rows)
        for frame in push_frames([row for _, row in rows], [known[Digest(digest)] for digest in new]):
            link.outlet.write(frame)

    def _undo_route(self, pending: Pending) -> None:
        """The commit of an envelope has ended without a push."""
        if pending.leased is not None:
            pending.leased.window.cancel(pending.submission.size)
        elif pending.submission.not_before is None:
            pending.mailbox.uncommitted -= 1

    def _fail(self, letters: Sequence[Pending]) -> None:
        for letter in letters:
            self._reject(letter, "storage", STORAGE_RETRY_MS)

    def _fail_fan_outs(self, fan_outs: Sequence[PendingFanOut], error: LocalError) -> None:
        for one in fan_outs:
            self._reject_fan_out(one, error, "storage", "", STORAGE_RETRY_MS)

    def _reject(self, pending: Pending, code: str, retry_after_ms: int | None) -> None:
        """Refuse an envelope that was admitted."""
        pending.link.unanswered -= 1
        self._undo_route(pending)
        self._leasing.pump(pending.mesh, pending.mailbox)
        submission = pending.submission
        self._metrics.count_refusal(code, submission.mesh, submission.sender)
        pending.link.send(RefusedMessage(code=code, id=submission.id, to=submission.to, retry_after_ms=retry_after_ms))

    def _reject_fan_out(
        self, one: PendingFanOut, error: ClaudemeshError, code: str, detail: str, retry_after_ms: int | None
    ) -> None:
        """Refuse a post or an epoch that was admitted."""
        one.settle(error)
        if one.kind == "post":
            one.link.unanswered -= 1
            self._metrics.count_refusal(code, one.mesh.id, one.link.peer)
            one.link.send(
                RefusedMessage(code=code, id=one.id, chan=one.channel, detail=detail, retry_after_ms=retry_after_ms)
            )


def refusal_of(message: Send | Post, code: str, detail: str = "", retry_after_ms: int | None = None) -> RefusedMessage:
    """The frame that refuses one message."""
    to, chan = (message.to, None) if isinstance(message, Send) else (None, message.chan)
    return RefusedMessage(code=code, id=message.id, to=to, chan=chan, detail=detail, retry_after_ms=retry_after_ms)
