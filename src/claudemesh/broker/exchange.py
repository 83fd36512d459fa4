"""Submit and acknowledge envelopes (docs/spec/broker.md §4).

There is no task per message: whatever is submitted and acknowledged while a commit runs goes into the
next one, and its answers and pushes are written when that has returned.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from claudemesh.broker.acceptance import Acceptances
from claudemesh.broker.directory import KnownAttestation, Mesh
from claudemesh.broker.leasing import Leasing
from claudemesh.broker.links import AcceptedRow, Link
from claudemesh.broker.metrics import Metrics
from claudemesh.broker.policy import Limits
from claudemesh.broker.pushing import check_flat, delivery, push_frames
from claudemesh.broker.routing import Mailbox
from claudemesh.broker.store.base import Acknowledgement, Store, Stored, Submission
from claudemesh.errors import LocalError
from claudemesh.protocol.messages import Refused, Send
from claudemesh.types import BrokerId, Digest, MessageId, PeerId, UnixMillis

STORAGE_RETRY_MS: Final = 5_000
OVERLOAD_RETRY_MS: Final = 500
MAILBOX_RETRY_MS: Final = 60_000


@dataclass(slots=True, eq=False)
class Pending:
    """One admitted envelope on its way into the store."""

    link: Link
    mesh: Mesh
    mailbox: Mailbox
    submission: Submission
    attestation: KnownAttestation
    leased: Link | None


class Exchange:
    """Takes envelopes from links, makes them durable, hands them on."""

    def __init__(
        self,
        store: Store,
        leasing: Leasing,
        acceptances: Acceptances,
        grants: Limits,
        metrics: Metrics,
        clock: Callable[[], UnixMillis],
        broker: BrokerId,
    ) -> None:
        self._store = store
        self._leasing = leasing
        self._acceptances = acceptances
        self._grants = grants
        self._metrics = metrics
        self._clock = clock
        self._broker = broker
        self._pending: list[Pending] = []
        self._pending_bytes = 0
        self._acks: dict[tuple[Mesh, PeerId], list[int]] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, link: Link, mesh: Mesh, message: Send, frame: bytes, known: KnownAttestation | None) -> None:
        """Admit one envelope for the next commit, or refuse it.

        Args:
            frame: The bytes of `message` as they came.
            known: The attestation that it names, if the broker holds it.

        Raises:
            Malformed: The frame must not be handed on as it is; the link is to be closed.
        """
        check_flat(frame)
        self._metrics.envelopes_submitted += 1
        now = self._clock()
        wait_ms = link.messages.take(now)
        if wait_ms:
            self._refuse(link, message, "rate_limited", retry_after_ms=wait_ms)
        elif len(self._pending) >= self._grants.pending_messages or self._pending_bytes >= self._grants.pending_bytes:
            self._refuse(link, message, "rate_limited", "the broker is busy", OVERLOAD_RETRY_MS)
        elif (refusal := self._objection(link, mesh, message, known, now)) is not None:
            self._refuse(link, message, *refusal)
        elif known is not None:
            self._enqueue(link, mesh, message, frame, known, now)

    def acknowledge(self, link: Link, mesh: Mesh, qs: list[int]) -> None:
        """Delete rows that this link was given and has recorded; others are ignored."""
        known = link.window.acknowledge(qs)
        if known:
            self._metrics.envelopes_acknowledged += len(known)
            self._acks.setdefault((mesh, link.peer), []).extend(known)
            self._rouse()
        mailbox = mesh.mailbox(link.peer)
        self._leasing.pump(mesh, mailbox)
        self._leasing.settle(link, mailbox)

    async def commit_forever(self) -> None:
        """Store what was submitted, batch after batch; the only writer of envelopes.

        A batch is answered while the next one is being written, on the store's own thread.
        """
        finished: tuple[Sequence[Pending], Sequence[Stored]] = (), ()
        while True:
            if not self._pending and not self._acks and not finished[0]:
                self._wake.clear()
                self._idle.set()
                await self._wake.wait()
            batch, self._pending, self._pending_bytes = self._pending, [], 0
            acks, self._acks = self._acks, {}
            writing = asyncio.ensure_future(self._store_all(batch, acks)) if batch or acks else None
            if finished[0]:
                await asyncio.sleep(0)  # the write begins
                self._answer(*finished)
            finished = await writing if writing is not None else ((), ())

    async def drained(self) -> None:
        """Wait until everything that was submitted is stored and answered."""
        await self._idle.wait()
        self._acceptances.flush()

    def _objection(
        self, link: Link, mesh: Mesh, message: Send, known: KnownAttestation | None, now: UnixMillis
    ) -> tuple[str, str] | None:
        """Why an envelope is not admitted: code and detail, or None."""
        if message.mesh != link.mesh or message.sender != link.peer:
            return "invalid", "mesh or sender"
        if not mesh.serves(self._broker):
            return "moved", ""
        if known is None or known.attestation.member != link.peer:
            return "invalid", "attestation is not published"
        if known.attestation.expires_at < now or "dm" not in known.attestation.capabilities:
            return "invalid", "attestation has expired or lacks dm"
        if not mesh.roster.is_active(PeerId(message.to)):
            return "unknown_peer", ""
        if mesh.rekeys.get(PeerId(message.to), -1) > message.rs:
            return "stale_roster", ""
        latest = now + self._grants.queue_lifetime_ms
        if (message.exp is not None and message.exp <= now) or (message.nbf is not None and message.nbf > latest):
            return "invalid", "times"
        return None

    def _enqueue(
        self, link: Link, mesh: Mesh, message: Send, frame: bytes, known: KnownAttestation, now: UnixMillis
    ) -> None:
        mailbox = mesh.mailbox(PeerId(message.to))
        size = len(frame)
        not_before = UnixMillis(message.nbf) if message.nbf is not None and message.nbf > now else None
        leased = mailbox.direct(self._grants.buffered_bytes) if not_before is None else None
        if leased is not None:
            leased.window.reserve(size)
        elif not_before is None:
            mailbox.uncommitted += 1
            mailbox.backlog = True
        latest = now + self._grants.queue_lifetime_ms
        submission = Submission(
            mesh=mesh.id,
            to=mailbox.peer,
            sender=link.peer,
            id=MessageId(message.id),
            priority=message.prio,
            size=size,
            expires_at=UnixMillis(latest if message.exp is None else min(message.exp, latest)),
            attestation=Digest(message.att),
            payload=frame,
            not_before=not_before,
            lease=None if leased is None else leased.id,
        )
        link.unanswered += 1
        self._pending_bytes += size
        self._pending.append(Pending(link, mesh, mailbox, submission, known, leased))
        self._rouse()

    def _rouse(self) -> None:
        self._idle.clear()
        self._wake.set()

    async def _store_all(
        self, batch: list[Pending], acks: dict[tuple[Mesh, PeerId], list[int]]
    ) -> tuple[list[Pending], list[Stored]]:
        """Commit one batch; what the store refuses is answered here, the rest is returned."""
        now, started = self._clock(), time.perf_counter()
        try:
            batch = await self._within_quota(batch)
            # Deletions first: the pages that they free are written anew by the appends of the same commit.
            _, answers = await asyncio.gather(self._delete(acks, now), self._append(batch, now))
        except LocalError:
            self._metrics.store_failures += 1
            for pending in batch:
                self._reject(pending, "storage", STORAGE_RETRY_MS)
            return [], []
        self._metrics.commits += 1
        self._metrics.commit_seconds += time.perf_counter() - started
        return batch, answers

    async def _append(self, batch: list[Pending], now: UnixMillis) -> list[Stored]:
        return await self._store.append([pending.submission for pending in batch], now) if batch else []

    async def _delete(self, acks: dict[tuple[Mesh, PeerId], list[int]], now: UnixMillis) -> None:
        """Delete acknowledged rows; those that the store cannot delete now are tried again."""
        if not acks:
            return
        try:
            await self._store.acknowledge_many(
                [Acknowledgement(mesh=mesh.id, peer=peer, qs=qs) for (mesh, peer), qs in acks.items()], now
            )
        except LocalError:
            self._metrics.store_failures += 1
            asyncio.get_running_loop().call_later(STORAGE_RETRY_MS / 1_000, self._acknowledge_again, acks)

    def _acknowledge_again(self, acks: dict[tuple[Mesh, PeerId], list[int]]) -> None:
        for key, qs in acks.items():
            self._acks.setdefault(key, []).extend(qs)
        self._rouse()

    async def _within_quota(self, batch: list[Pending]) -> list[Pending]:
        """Refuse what its mailbox has no room for, or whose recipient was revoked meanwhile."""
        usage: dict[Mailbox, tuple[int, int]] = {}
        for mailbox in {pending.mailbox for pending in batch}:
            used = await self._store.mailbox_usage(mailbox.mesh, mailbox.peer)
            usage[mailbox] = used.rows, used.size
        admitted = []
        for pending in batch:
            rows, size = usage[pending.mailbox]
            if not pending.mesh.roster.is_active(pending.mailbox.peer):
                self._reject(pending, "unknown_peer", None)
            elif rows >= self._grants.mailbox_rows or size + pending.submission.size > self._grants.mailbox_bytes:
                self._reject(pending, "mailbox_full", MAILBOX_RETRY_MS)
            else:
                usage[pending.mailbox] = rows + 1, size + pending.submission.size
                admitted.append(pending)
        return admitted

    def _answer(self, batch: Sequence[Pending], answers: Sequence[Stored]) -> None:
        """Push what was leased, and state what is stored."""
        pushes: dict[Link, list[tuple[Pending, Stored]]] = {}
        for pending, stored in zip(batch, answers, strict=True):
            sender, submission = pending.link, pending.submission
            sender.unanswered -= 1
            row = AcceptedRow(stored.audit_hash, submission.id, stored.audit_n, submission.to)
            self._acceptances.add(sender, row)
            self._metrics.envelopes_duplicate += stored.duplicate
            self._route(pending, stored, pushes)
        self._metrics.envelopes_accepted += len(batch)
        for link, rows in pushes.items():
            self._push(link, rows)
        self._acceptances.settle()

    def _route(self, pending: Pending, stored: Stored, pushes: dict[Link, list[tuple[Pending, Stored]]]) -> None:
        link = pending.leased
        if link is not None and stored.leased and not link.closed:
            link.window.fill(stored.q, pending.submission.size)
            pushes.setdefault(link, []).append((pending, stored))
            return
        if link is not None and stored.leased:
            self._leasing.returned(link)
        self._undo_route(pending)
        if pending.submission.not_before is not None:
            self._leasing.scheduled()
        else:
            pending.mailbox.wait()
            self._leasing.pump(pending.mesh, pending.mailbox)

    def _push(self, link: Link, rows: list[tuple[Pending, Stored]]) -> None:
        known = {pending.attestation.attestation.digest: pending.attestation.statement for pending, _ in rows}
        new = link.unseen(set(known))
        deliveries = [
            delivery(stored.q, stored.accepted_at, "dm", pending.submission.payload) for pending, stored in rows
        ]
        self._metrics.envelopes_pushed += len(rows)
        for frame in push_frames(deliveries, [known[Digest(digest)] for digest in new]):
            link.outlet.write(frame)

    def _undo_route(self, pending: Pending) -> None:
        """The commit of an envelope has ended without a push."""
        if pending.leased is not None:
            pending.leased.window.cancel(pending.submission.size)
        elif pending.submission.not_before is None:
            pending.mailbox.uncommitted -= 1

    def _reject(self, pending: Pending, code: str, retry_after_ms: int | None) -> None:
        """Refuse an envelope that was admitted."""
        pending.link.unanswered -= 1
        self._undo_route(pending)
        self._leasing.pump(pending.mesh, pending.mailbox)
        submission = pending.submission
        self._metrics.count_refusal(code, submission.mesh, submission.sender)
        pending.link.send(Refused(code=code, id=submission.id, to=submission.to, retry_after_ms=retry_after_ms))

    def _refuse(
        self, link: Link, message: Send, code: str, detail: str = "", retry_after_ms: int | None = None
    ) -> None:
        self._metrics.count_refusal(code, link.mesh, link.peer)
        link.send(Refused(code=code, id=message.id, to=message.to, detail=detail, retry_after_ms=retry_after_ms))
