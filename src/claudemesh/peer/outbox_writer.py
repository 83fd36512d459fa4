"""Committing what is sent at the same time together: one operation of the database, not one for each message."""

import asyncio
from collections.abc import Sequence

from claudemesh.database import BRIEF_BYTES
from claudemesh.peer.journal import Journal, outbox
from claudemesh.peer.journal.outbox import Draft
from claudemesh.types import MeshId


class OutboxWriter:
    """Gathers drafts while a commit runs; the next commit takes all of them."""

    def __init__(self, mesh: MeshId, journal: Journal) -> None:
        self._mesh = mesh
        self._journal = journal
        self._gathered: list[Draft] = []
        self._next: asyncio.Task[None] | None = None
        self._committing = asyncio.Lock()

    async def add(self, drafts: Sequence[Draft]) -> None:
        """Return when `drafts` are durable; raises what the commit raised, and then none of them is."""
        self._gathered += drafts
        if self._next is None:
            self._next = asyncio.create_task(self._commit(), name="outbox commit")
        await asyncio.shield(self._next)

    async def finish(self) -> None:
        """Wait until everything that was added is durable or was refused."""
        if self._next is not None:
            await asyncio.wait({self._next})
        async with self._committing:
            pass

    async def _commit(self) -> None:
        async with self._committing:
            drafts, self._gathered, self._next = self._gathered, [], None
            brief = sum(len(draft.body) for draft in drafts) <= BRIEF_BYTES
            await self._journal.write(lambda connection: outbox.enqueue(connection, self._mesh, drafts), brief=brief)
