"""Submit and acknowledge messages and epochs (docs/spec/broker.md §4).

There is no task per message: whatever is submitted and acknowledged while a commit runs goes into the
next one, and its answers and pushes are written when that has returned.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from claudemesh.broker.acceptance import Acceptances
from claudemesh.broker.admission import object_to_post, object_to_send
from claudemesh.broker.commits import STORAGE_RETRY_MS, Acks, Batch, Commits, Committed, Pending, refusal_of
from claudemesh.broker.directory import KnownAttestation, Mesh
from claudemesh.broker.fan_out import PendingFanOut, message_cost
from claudemesh.broker.leasing import Leasing
from claudemesh.broker.links import Link
from claudemesh.broker.metrics import Metrics
from claudemesh.broker.policy import Limits
from claudemesh.broker.pushing import check_flat
from claudemesh.broker.shedding import Shedding
from claudemesh.broker.store.base import Submission
from claudemesh.errors import Refused
from claudemesh.protocol.messages import Post, Send
from claudemesh.types import BrokerId, ChannelId, Digest, MessageId, PeerId, UnixMillis

_TURNS_TO_BEGIN: Final = 2
"""Turns of the loop until a batch is with the writer: the task of the batch, then the tasks of its calls."""


class Exchange:
    """Takes envelopes from links, makes them durable, hands them on."""

    def __init__(
        self,
        commits: Commits,
        leasing: Leasing,
        acceptances: Acceptances,
        limits: Limits,
        metrics: Metrics,
        clock: Callable[[], UnixMillis],
        broker: BrokerId,
        shedding: Shedding,
    ) -> None:
        self._leasing = leasing
        self._acceptances = acceptances
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._broker = broker
        self._shedding = shedding
        self._commits = commits
        self._pending: list[Pending] = []
        self._fan_outs: list[PendingFanOut] = []
        self._pending_rows = 0
        self._committing_rows = 0
        self._pending_since: float | None = None
        self._pending_bytes = 0
        self._acks: Acks = {}
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
        if self._is_too_fast(link, message, 1, now):
            return
        objection = object_to_send(link, mesh, message, known, self._broker, now, self._limits.queue_lifetime_ms)
        if objection is not None:
            self._refuse(link, message, *objection)
        elif known is not None:
            self._enqueue(link, mesh, message, frame, known, now)

    def post(self, link: Link, mesh: Mesh, message: Post, frame: bytes, known: KnownAttestation | None) -> None:
        """Admit one channel message for the next commit, or refuse it; arguments and errors as for `submit`."""
        check_flat(frame)
        self._metrics.envelopes_submitted += 1
        now = self._clock()
        latest = now + self._limits.queue_lifetime_ms
        objection = object_to_post(link, mesh, message, known, self._broker, now, self._limits.queue_lifetime_ms)
        recipients = 0
        if objection is None:
            recipients = len(mesh.subscriptions.subscribers(mesh.roster, ChannelId(message.chan)))
        if self._is_too_fast(link, message, message_cost(recipients, self._limits.messages_burst), now):
            return
        if objection is not None:
            self._refuse(link, message, *objection)
        elif known is not None:
            pending = PendingFanOut(
                link=link,
                mesh=mesh,
                kind="post",
                channel=ChannelId(message.chan),
                id=message.id,
                priority=message.prio,
                roster_seq=message.rs,
                attestation=known,
                payload=frame,
                size=len(frame),
                expires_at=UnixMillis(latest if message.exp is None else min(message.exp, latest)),
                not_before=UnixMillis(message.nbf) if message.nbf is not None and message.nbf > now else None,
            )
            self._enqueue_fan_out(pending, recipients)

    async def publish(self, pending: PendingFanOut) -> None:
        """Store an epoch with the next commit; returns when it is stored.

        Raises:
            Refused: `rate_limited` the broker is busy; `stale_roster`, `invalid` the members changed meanwhile.
            LocalError: The store failed; nothing was stored.
        """
        if self._is_busy():
            raise Refused("rate_limited", "the broker is busy", retry_after_ms=self._shedding.retry_after_ms())
        pending.published = asyncio.get_running_loop().create_future()
        self._enqueue_fan_out(pending, len(pending.slots))
        await pending.published

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
        finished = Committed()
        while True:
            if not self._pending and not self._fan_outs and not self._acks and not finished:
                self._wake.clear()
                self._idle.set()
                await self._wake.wait()
            batch = Batch(self._pending, self._fan_outs, self._acks, self._pending_since)
            self._pending, self._fan_outs, self._acks = [], [], {}
            self._committing_rows = self._pending_rows
            self._commits.is_routing = bool(batch.fan_outs)
            self._pending_rows = self._pending_bytes = 0
            self._pending_since = None
            writing = asyncio.ensure_future(self._commits.store(batch)) if batch else None
            if finished:
                for _ in range(_TURNS_TO_BEGIN):
                    await asyncio.sleep(0)
                self._commits.answer(finished)
            finished = await writing if writing is not None else Committed()
            if finished.undeleted:
                later = asyncio.get_running_loop().call_later
                later(STORAGE_RETRY_MS / 1_000, self._acknowledge_again, finished.undeleted)

    async def drained(self) -> None:
        """Wait until everything that was submitted is stored and answered."""
        await self._idle.wait()
        self._acceptances.flush()

    def _acknowledge_again(self, acks: Acks) -> None:
        for key, qs in acks.items():
            self._acks.setdefault(key, []).extend(qs)
        self._rouse()

    def _is_too_fast(self, link: Link, message: Send | Post, cost: int, now: UnixMillis) -> bool:
        """Refuse what comes faster than this link, or this broker, may take it."""
        wait_ms = link.messages.take(now, cost)
        if wait_ms:
            self._refuse(link, message, "rate_limited", retry_after_ms=wait_ms)
        elif self._is_busy() or not self._shedding.admits(self._pending_rows + self._committing_rows):
            self._refuse(link, message, "rate_limited", "the broker is busy", self._shedding.retry_after_ms())
        else:
            return False
        return True

    def _is_busy(self) -> bool:
        return self._pending_rows >= self._limits.pending_messages or self._pending_bytes >= self._limits.pending_bytes

    def _enqueue(
        self, link: Link, mesh: Mesh, message: Send, frame: bytes, known: KnownAttestation, now: UnixMillis
    ) -> None:
        mailbox = mesh.mailbox(PeerId(message.to))
        size = len(frame)
        not_before = UnixMillis(message.nbf) if message.nbf is not None and message.nbf > now else None
        leased = None
        if not_before is None and not self._commits.is_routing:
            leased = mailbox.direct(self._limits.buffered_bytes)
        if leased is not None:
            leased.window.reserve(size)
        elif not_before is None:
            mailbox.uncommitted += 1
            mailbox.backlog = True
        latest = now + self._limits.queue_lifetime_ms
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
        self._pending.append(Pending(link, mesh, mailbox, submission, known, leased, message.rs))
        self._count(1, size)

    def _enqueue_fan_out(self, pending: PendingFanOut, recipients: int) -> None:
        if pending.kind == "post":
            pending.link.unanswered += 1
        self._fan_outs.append(pending)
        self._count(max(1, recipients), pending.size)

    def _count(self, rows: int, size: int) -> None:
        """Something more waits for its commit."""
        self._pending_rows += rows
        self._pending_bytes += size
        if self._pending_since is None:
            self._pending_since = time.perf_counter()
        self._rouse()

    def _rouse(self) -> None:
        self._idle.clear()
        self._wake.set()

    def _refuse(
        self, link: Link, message: Send | Post, code: str, detail: str = "", retry_after_ms: int | None = None
    ) -> None:
        self._metrics.count_refusal(code, link.mesh, link.peer)
        link.send(refusal_of(message, code, detail, retry_after_ms))
