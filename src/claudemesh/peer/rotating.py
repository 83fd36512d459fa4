"""New epochs: made by the send rule when somebody writes, or at once by a revoker (docs/spec/channels.md §3).

A new epoch is in the journal before it is published, and nothing is sent under it before the broker has stored it. A
rotator that dies in between leaves a secret that nobody uses.
"""

import asyncio
import os
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from claudemesh.crypto.epochs import NewEpoch
from claudemesh.errors import EpochRefused, Refused
from claudemesh.peer.attesting import Attesting
from claudemesh.peer.cards import CardDirectory
from claudemesh.peer.epochs import Epochs
from claudemesh.peer.incoming import Incoming
from claudemesh.peer.journal import Journal
from claudemesh.peer.journal import epochs as rows
from claudemesh.peer.journal.epochs import Publication
from claudemesh.peer.keyring import Keyring
from claudemesh.peer.line import Line
from claudemesh.peer.membership import Membership
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.session import Sessions
from claudemesh.protocol import epochs, limits
from claudemesh.protocol.epoch_rules import slot_holders
from claudemesh.protocol.epochs import HeldEpoch
from claudemesh.protocol.messages import Ok, PutEpoch
from claudemesh.types import BoxId, ChannelId, Digest, PeerId

MAX_ATTEMPTS: Final = 8
MANY_BOXES: Final = 128
"""From here on threads are worth their while: a box takes about 35 µs."""
MAX_THREADS: Final = 8


class Rotator:
    """Makes the epochs of one peer, one at a time for each scope."""

    def __init__(
        self,
        membership: Membership,
        cards: CardDirectory,
        keyring: Keyring,
        sessions: Sessions,
        attesting: Attesting,
        epochs: Epochs,
        incoming: Incoming,
        journal: Journal,
        runtime: Runtime,
    ) -> None:
        self._membership = membership
        self._cards = cards
        self._keyring = keyring
        self._sessions = sessions
        self._attesting = attesting
        self._epochs = epochs
        self._incoming = incoming
        self._journal = journal
        self._runtime = runtime
        self._turns: defaultdict[ChannelId, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def epoch_for(self, line: Line, scope: ChannelId) -> HeldEpoch:
        """The epoch to send under: one that is held, else one that waits in the mailbox, else a new one.

        Raises:
            Refused: The broker does not take one now.
            EpochRefused: `epoch_author`; this peer is not in the scope.
            Unreachable: The link was lost.
        """
        usable = self._epochs.usable(scope)
        if usable is not None:
            return usable
        async with self._turns[scope]:
            usable = self._epochs.usable(scope)
            if usable is None:
                await self._incoming.drained()
                usable = self._epochs.usable(scope)
            return usable or await self._rotate(line, scope)

    async def rotate_all(self, line: Line, scopes: Iterable[ChannelId] | None = None) -> list[ChannelId]:
        """Replace at once every epoch that the send rule forbids now.

        Args:
            scopes: Only these; None for every scope of which this peer holds any epoch.

        Returns:
            The scopes that have a new epoch; those that this peer is not in are left out.
        """
        rotated = []
        for scope in sorted(self._epochs.scopes if scopes is None else set(scopes)):
            if not self._is_member(scope) or self._epochs.usable(scope) is not None:
                continue
            await self.epoch_for(line, scope)
            rotated.append(scope)
        return rotated

    async def publish_again(self, line: Line) -> None:
        """Publish epochs of our own whose answer was lost with the link; what is outdated is deleted.

        In a frozen mesh nothing is done: who writes after that makes another one.
        """
        mesh = self._membership.mesh
        if self._membership.frozen is not None:
            return
        for publication in await self._journal.read(lambda connection: rows.load_unpublished(connection, mesh)):
            record = publication.epoch.record
            if self._is_outdated(publication):
                await self._drop(record.id)
                continue
            try:
                await self._publish(line, publication)
            except Refused:
                await self._drop(record.id)  # whether it was stored before, our own mailbox tells

    # Private

    async def _rotate(self, line: Line, scope: ChannelId) -> HeldEpoch:
        for _ in range(MAX_ATTEMPTS):
            publication = await self._make(line, scope)
            try:
                return await self._publish(line, publication)
            except Refused as error:
                await self._drop(publication.epoch.id)
                if error.code == "stale_roster":
                    await self._membership.catch_up(line)
                    if publication.epoch.record.roster_seq == self._membership.roster.seq:
                        raise  # there is nothing newer to seal for: a broker that is never satisfied gets no more of it
                elif error.code == "rate_limited":
                    await asyncio.sleep((error.retry_after_ms or limits.EPOCH_INTERVAL_MS) / 1000)
                else:
                    raise
            usable = self._epochs.usable(scope)
            if usable is not None:
                return usable  # another member was faster
        raise Refused("stale_roster", "the roster does not settle")

    async def _make(self, line: Line, scope: ChannelId) -> Publication:
        """Make an epoch for exactly those whom the roster names now, and journal it."""
        await self._attesting.renew_due(line)
        while True:
            self._membership.require_unfrozen()
            if not self._is_member(scope):
                raise EpochRefused("epoch_author", "not in the channel")
            holders = slot_holders(self._membership.roster, scope, self._membership.roster.seq)
            unasked = self._cards.unasked(holders)
            if unasked:
                await self._cards.refresh(line, unasked)
            if not self._has_head():
                await self._membership.catch_up(line)
            if self._has_head():
                break
        session = self._sessions.main
        made = self._seal(scope)
        publication = Publication(
            HeldEpoch(made.record, made.secret, self._runtime.now()),
            made.statement,
            session.attestation.digest,
            made.slots,
        )
        await self._journal.write(lambda connection: self._save(connection, publication))
        return publication

    def _has_head(self) -> bool:
        """Whether the broker signed exactly the roster that is known here."""
        head, roster = self._membership.head, self._membership.roster
        return head is not None and (head.seq, head.head) == (roster.seq, roster.head)

    def _seal(self, scope: ChannelId) -> NewEpoch:
        """Nothing is awaited here: members, head and secret belong to one moment."""
        roster, head = self._membership.roster, self._membership.head
        assert head is not None
        boxes = {peer: self._box_of(peer) for peer in slot_holders(roster, scope, roster.seq)}
        return epochs.rotate(
            roster,
            head,
            scope,
            self._keyring.member,
            self._sessions.main.keys,
            boxes,
            self._runtime.now(),
            self._runtime.entropy(64),
            each=_on_every_core,
        )

    def _box_of(self, peer: PeerId) -> BoxId:
        return BoxId(self._keyring.current.box) if peer == self._keyring.member else self._cards.box_of(peer)

    async def _publish(self, line: Line, publication: Publication) -> HeldEpoch:
        frame = PutEpoch(rid=0, st=publication.statement, att=publication.attestation, slots=list(publication.slots))
        await line.request(frame, Ok)
        mesh, held = self._membership.mesh, publication.epoch
        await self._journal.write(lambda connection: rows.mark_published(connection, mesh, held.id))
        self._epochs.hold(held)
        return held

    def _save(self, connection: sqlite3.Connection, publication: Publication) -> None:
        frame = rows.write_publication(publication.attestation, publication.slots)
        rows.save(connection, self._membership.mesh, publication.epoch, publication.statement, frame)

    async def _drop(self, epoch: Digest) -> None:
        mesh = self._membership.mesh
        await self._journal.write(lambda connection: rows.drop_unpublished(connection, mesh, epoch))

    def _is_member(self, scope: ChannelId) -> bool:
        roster = self._membership.roster
        return roster.was_in_channel_at(self._keyring.member, scope, roster.seq)

    def _is_outdated(self, publication: Publication) -> bool:
        roster, record = self._membership.roster, publication.epoch.record
        if record.scope not in roster.channels:
            return True
        return record.roster_seq < roster.channel_version(record.scope)


def _on_every_core(seal: Callable[[BoxId], str], boxes: Sequence[BoxId]) -> Iterable[str]:
    """Seal to many at the same time: libsodium works while Python does something else."""
    cores = min(os.cpu_count() or 1, MAX_THREADS)
    if len(boxes) < MANY_BOXES or cores == 1:
        return map(seal, boxes)
    length = -(-len(boxes) // (2 * cores))
    parts = [boxes[start : start + length] for start in range(0, len(boxes), length)]
    with ThreadPoolExecutor(cores) as threads:
        return [slot for part in threads.map(lambda part: [seal(box) for box in part], parts) for slot in part]
