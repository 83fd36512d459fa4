"""History that members share, also when it comes before the epoch that opens it (docs/spec/channels.md §6).

A sharer seals the older secrets under an epoch that the newcomer is entitled to, but may not hold yet: its slot was
bad, or waits in the mailbox behind. What is shared is then kept, the sharer is asked for that epoch, and all of it is
read as soon as that is here.
"""

import asyncio
import sqlite3
from dataclasses import dataclass
from typing import Final

from claudemesh.crypto.epoch_record import read_record
from claudemesh.errors import Invalid, LocalError
from claudemesh.peer import channel_contents
from claudemesh.peer.channel_contents import HISTORY
from claudemesh.peer.epochs import Epochs
from claudemesh.peer.history import History, PastTaken
from claudemesh.peer.journal import Journal, inbox, kept_history, outbox
from claudemesh.peer.journal.kept_history import KeptRow
from claudemesh.peer.journal.outbox import Draft
from claudemesh.peer.membership import Membership
from claudemesh.peer.repairing import EpochTaken, Repairs, topic_of
from claudemesh.peer.runtime import Runtime
from claudemesh.types import ChannelId, Digest, MeshId, PeerId, UnixMillis

MAX_KEPT_PER_SHARER: Final = 64
"""Messages of up to 384 KiB; the newest thousand posts of a channel fit in."""


class SharedHistory:
    """Takes what is shared, now or when it can be opened."""

    def __init__(
        self, membership: Membership, epochs: Epochs, repairs: Repairs, history: History, journal: Journal, run: Runtime
    ) -> None:
        self._membership = membership
        self._epochs = epochs
        self._repairs = repairs
        self._history = history
        self._journal = journal
        self._runtime = run
        self._awaited: dict[tuple[PeerId, ChannelId], Digest] = {}
        self._epoch_held = asyncio.Event()

    async def load(self) -> None:
        """Read from the journal what is kept."""
        mesh = self._membership.mesh
        for row in await self._journal.read(lambda connection: kept_history.load(connection, mesh)):
            self._awaited[row.sharer, row.scope] = row.epoch
        self._epoch_held.set()

    def epoch_held(self) -> None:
        """An epoch has come; what is kept may wait for it."""
        if self._awaited:
            self._epoch_held.set()

    def read(self, content_type: str, body: bytes, sharer: PeerId) -> "EpochTaken | PastTaken | Kept":
        """Check what a member shares, or keep it until its epoch is here.

        Raises:
            Invalid: As `History.take_epoch` and `History.take_past`.
        """
        scope, epoch = self._missing(content_type, body, sharer)
        if epoch is None:
            self._awaited.pop((sharer, scope), None)
            return self._take(content_type, body, sharer)
        self._awaited[sharer, scope] = epoch
        row = KeptRow(0, sharer, scope, epoch, content_type, body)
        return Kept(row, self._repairs.question(sharer, epoch), self)

    def kept(self, row: KeptRow) -> None:
        """Something is durable that waits for an epoch, which may have come meanwhile."""
        self._repairs.asked(row.sharer, row.epoch)
        self.epoch_held()

    async def run(self) -> None:
        """Read what is kept as soon as its epoch is here, until cancelled."""
        while True:
            await self._epoch_held.wait()
            self._epoch_held.clear()
            try:
                await self._release()
            except LocalError:  # the disk is full: later
                await asyncio.sleep(self._runtime.tempo.disk_retry_ms / 1000)
                self._epoch_held.set()

    # Private

    def _missing(self, content_type: str, body: bytes, sharer: PeerId) -> tuple[ChannelId, Digest | None]:
        """The scope that something is of, and the epoch that it waits for, if it does."""
        roster, past = self._membership.roster, None
        if content_type == HISTORY:
            value = channel_contents.read_body(body)
            old, new = value.get("old"), value.get("new")
            if not isinstance(old, dict) or not isinstance(new, str):
                return ChannelId(""), None
            channel, missing = read_record(old).scope, None if self._epochs.find(new) else Digest(new)
        else:
            past = channel_contents.read_past(body)
            channel, missing = past.chan, None
        if channel not in roster.channels or not {sharer, self._history.member} <= roster.channel_members(channel):
            return ChannelId(""), None  # refused where it is taken
        scope = roster.scope_of(channel)
        if past is not None:
            missing = self._awaited.get((sharer, scope)) or self._history.missing_epoch(past)
        return scope, missing

    def _take(self, content_type: str, body: bytes, sharer: PeerId) -> EpochTaken | PastTaken:
        if content_type == HISTORY:
            return self._history.take_epoch(channel_contents.read_body(body), sharer)
        return self._history.take_past(channel_contents.read_past(body), sharer)

    async def _release(self) -> None:
        mesh, now = self._membership.mesh, self._runtime.now()
        kept = await self._journal.read(lambda connection: kept_history.load(connection, mesh))
        due = [row for row in kept if self._epochs.find(row.epoch) is not None]
        taken = []
        for row in due:
            self._awaited.pop((row.sharer, row.scope), None)
            try:
                taken.append(self._take(row.content_type, row.body, row.sharer))
            except Invalid:
                continue  # as if it had come now: what proves nothing is left out

        def write(connection: sqlite3.Connection) -> None:
            for effect in taken:
                effect.record(connection, mesh, now)
            kept_history.drop(connection, [row.id for row in due])

        if due:
            await self._journal.write(write)
        for effect in taken:
            effect.settle()


@dataclass(frozen=True, slots=True)
class Kept:
    """Something shared that cannot be opened yet, with the question for what opens it."""

    row: KeptRow
    question: Draft
    shared: SharedHistory

    def record(self, connection: sqlite3.Connection, mesh: MeshId, now: UnixMillis) -> bool:
        """Keep it, and ask its sharer, once for each epoch."""
        if not kept_history.keep(connection, mesh, self.row, MAX_KEPT_PER_SHARER, now):
            return False
        if not inbox.note_nack(connection, mesh, self.row.sharer, topic_of(self.row.epoch), now):
            return False
        outbox.enqueue(connection, mesh, [self.question])
        return True

    def settle(self) -> None:
        """The answer will be taken."""
        self.shared.kept(self.row)
