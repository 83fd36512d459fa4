"""Reading the inbox: each message goes to a reader once, and is marked as seen when the reader asks for the next."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace

from claudemesh.peer.journal import inbox, outbox, posts
from claudemesh.peer.journal.inbox import InboxRow, ReceiptDue
from claudemesh.peer.journal.outbox import OutboxRow
from claudemesh.peer.journal.posts import PostRow
from claudemesh.peer.parts import Parts
from claudemesh.peer.views import Received, read_row
from claudemesh.protocol.chains import Cause, Chain
from claudemesh.protocol.delivery import Stage
from claudemesh.types import MessageId, SessionId

READ_BATCH = 100
MARK_BATCH = 32


class Reader:
    """Reads for the peer as such, or for one of its sessions."""

    def __init__(self, parts: Parts, session: SessionId | None) -> None:
        self._parts = parts
        self._session = session

    async def messages(self) -> AsyncGenerator[Received, None]:
        """Yield unseen messages, and wait for more; a message counts as seen when the next one is asked for.

        What was yielded and not followed up when the process ends is yielded again by the next one.
        """
        parts, after, taken = self._parts, 0, list[int]()
        quiet = parts.holding.quiet
        try:
            with parts.tracker.reading() as arrived:
                while True:
                    arrived.clear()
                    if quiet != parts.holding.quiet:  # what was passed over may be due now
                        await self._mark(taken)
                        quiet, after = parts.holding.quiet, 0
                    rows = await self._load(after)
                    for row in rows:
                        after = row.id
                        shown = self.show(row)
                        if row.reply_to in parts.tracker.asked or parts.holding.quiet.withheld(shown.priority):
                            continue
                        yield shown
                        taken.append(row.id)
                        if len(taken) >= MARK_BATCH:
                            await self._mark(taken)
                    if len(rows) < READ_BATCH and not arrived.is_set():
                        await self._mark(taken)
                        await arrived.wait()
        finally:
            with suppress(Exception):  # the journal may be closed by now; then they are yielded again
                await self._mark(taken)

    async def list_unseen(self, limit: int, after: int = 0) -> list[Received]:
        """Unseen messages, without marking them."""
        mesh, session = self._parts.mesh, self._session
        rows = await self._parts.journal.read(lambda c: inbox.load_unseen(c, mesh, session, after, limit))
        return [self.show(row) for row in rows]

    async def list_latest(self, limit: int) -> list[Received]:
        """The last messages, seen or not, oldest first."""
        mesh = self._parts.mesh
        rows = await self._parts.journal.read(lambda c: inbox.load_latest(c, mesh, limit))
        return [self.show(row) for row in rows]

    async def list_after(self, number: int, limit: int) -> list[Received]:
        """Messages after row `number`, seen or not, oldest first."""
        mesh = self._parts.mesh
        rows = await self._parts.journal.read(lambda c: inbox.load_after(c, mesh, number, limit))
        return [self.show(row) for row in rows]

    async def mark_seen(self, numbers: list[int]) -> None:
        """Have messages, by their row numbers, not be listed as unseen again."""
        now = self._parts.runtime.now()
        await self._parts.journal.write(lambda c: inbox.mark_seen(c, numbers, now), brief=len(numbers) <= MARK_BATCH)

    async def reply_to(self, message_id: MessageId, timeout_s: float) -> Received | None:
        """Wait for the first reply to a message of ours, and take it; None when none came in time."""
        parts, mesh = self._parts, self._parts.mesh
        with parts.tracker.waiting(message_id) as changed, suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    changed.clear()
                    replies = await parts.journal.read(lambda c: inbox.find_replies(c, mesh, message_id), brief=True)
                    if replies and not parts.holding.quiet.paused_since:
                        await self.mark_seen([replies[0].id])
                        return self.show(replies[0])
                    await changed.wait()
        return None

    async def cause(self, message_id: MessageId) -> Cause:
        """A message of ours or of another as the reason of the next one; unknown ones began where they are."""
        parts, mesh = self._parts, self._parts.mesh
        senders = list(parts.membership.roster.members)

        def read(connection: sqlite3.Connection) -> InboxRow | OutboxRow | PostRow | None:
            sent = outbox.find(connection, mesh, message_id)
            own = sent[0] if sent else posts.find(connection, mesh, message_id)
            return own or inbox.find_of_any(connection, mesh, senders, message_id)

        row = await parts.journal.read(read)
        if isinstance(row, InboxRow):
            return self.show(row).cause
        if row is None or row.root is None or row.hop is None:
            return Cause(message_id, None)
        return Cause(message_id, Chain(row.root, row.hop))

    async def owe_receipt(self, message: Received, stage: Stage, note: str) -> None:
        """Tell the sender of a message that it came further here; in the name of this reader's session."""
        parts = self._parts
        due = ReceiptDue(message.sender_id, message.id, stage, parts.runtime.now(), self._session, note)
        await parts.journal.write(lambda c: inbox.add_receipts_due(c, parts.mesh, [due]), brief=True)
        parts.receipts.wake()

    async def _load(self, after: int) -> list[InboxRow]:
        mesh, session = self._parts.mesh, self._session
        return await self._parts.journal.read(
            lambda c: inbox.load_unseen(c, mesh, session, after, READ_BATCH), brief=True
        )

    async def _mark(self, taken: list[int]) -> None:
        if taken:
            numbers = taken.copy()
            taken.clear()
            await self.mark_seen(numbers)

    def show(self, row: InboxRow) -> Received:
        """A row as it is shown now: `now` of a sender that may not interrupt is a wish like any other."""
        parts = self._parts
        shown = read_row(row, parts.names.address_of, parts.channels.directory.address_of, parts.remembered_since)
        if shown.priority == "now" and not self._parts.grants.may_interrupt(row.sender, row.session):
            return replace(shown, priority="next")
        return shown
