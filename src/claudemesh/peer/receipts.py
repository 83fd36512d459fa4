"""Receipts that are due become encrypted messages to the senders, a batch for each (docs/spec/delivery.md §4)."""

import asyncio
import sqlite3
from collections.abc import Callable
from itertools import groupby
from typing import Final

from claudemesh.errors import LocalError
from claudemesh.peer import contents
from claudemesh.peer.contents import Receipt
from claudemesh.peer.journal import Journal, inbox, outbox
from claudemesh.peer.journal.inbox import ReceiptDue
from claudemesh.peer.journal.outbox import Draft
from claudemesh.peer.membership import Membership
from claudemesh.peer.runtime import Runtime
from claudemesh.protocol import limits
from claudemesh.protocol.delivery import Stage
from claudemesh.types import MessageId, UnixMillis

MAX_DUE_PER_ROUND: Final = 2_048
MAX_BRIEF: Final = 256
BUSY_FACTOR: Final = 10
"""Soon after a round, the next one waits this many times longer for company."""
PATIENCE: Final = 10
"""While messages keep arriving, receipts wait for at most this many delays."""


class ReceiptSender:
    """Moves receipts from `receipts_due` to the outbox; both are durable, so none is lost or invented."""

    def __init__(
        self, membership: Membership, journal: Journal, runtime: Runtime, outbox_changed: Callable[[], None]
    ) -> None:
        self._membership = membership
        self._journal = journal
        self._runtime = runtime
        self._outbox_changed = outbox_changed
        self._round_at = UnixMillis(0)
        self._due = asyncio.Event()
        self._due.set()

    def wake(self) -> None:
        """Receipts became due."""
        self._due.set()

    async def run(self) -> None:
        """Work until cancelled, with or without a link."""
        while True:
            await self._due.wait()
            await self._gather()
            try:
                while await self._enqueue() == MAX_DUE_PER_ROUND:
                    pass
            except LocalError:  # the disk is full: they stay due
                await asyncio.sleep(self._runtime.tempo.disk_retry_ms / 1000)
                self._due.set()
            self._round_at = self._runtime.now()

    async def _gather(self) -> None:
        """Wait until no more receipts become due for a moment: one message then carries many.

        After a quiet time the first receipt leaves almost at once; under load they wait for one another.
        """
        delay_ms = self._runtime.tempo.receipt_delay_ms
        if self._runtime.now() - self._round_at < delay_ms * BUSY_FACTOR * 2:
            delay_ms *= BUSY_FACTOR
        for _ in range(PATIENCE):
            self._due.clear()
            await asyncio.sleep(delay_ms / 1000)
            if not self._due.is_set():
                break
        self._due.clear()

    async def _enqueue(self) -> int:
        mesh = self._membership.mesh
        due = await self._journal.read(
            lambda connection: inbox.load_receipts_due(connection, mesh, MAX_DUE_PER_ROUND), brief=True
        )
        if not due:
            return 0
        drafts = self._drafts(due)

        def write(connection: sqlite3.Connection) -> None:
            outbox.enqueue(connection, mesh, drafts)
            inbox.drop_receipts_due(connection, mesh, due)

        await self._journal.write(write, brief=len(due) <= MAX_BRIEF)
        self._outbox_changed()
        return len(due)

    def _drafts(self, due: list[ReceiptDue]) -> list[Draft]:
        now = self._runtime.now()
        drafts = []
        ordered = sorted(due, key=lambda one: (one.sender, one.session or ""))
        for (sender, session), group in groupby(ordered, key=lambda one: (one.sender, one.session)):
            if not self._membership.roster.is_active(sender):
                continue
            rows = [Receipt(one.message_id, Stage(one.stage), one.at, one.detail) for one in group]
            for start in range(0, len(rows), limits.MAX_IDS_PER_FRAME):
                drafts.append(
                    Draft(
                        message_id=MessageId(self._runtime.entropy(16).hex()),
                        peer=sender,
                        content_type=contents.RECEIPT,
                        body=contents.write_receipts(rows[start : start + limits.MAX_IDS_PER_FRAME]),
                        created_at=now,
                        priority="low",
                        intent="ack",
                        session=session,
                    )
                )
        return drafts
