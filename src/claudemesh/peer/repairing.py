"""Epochs by way of a member: a slot that is missing is asked for, given and taken (docs/spec/channels.md §7).

A secret is taken only from who was asked for it, and given only to who was entitled to it, to each peer once.
"""

import sqlite3
from dataclasses import dataclass
from typing import Final

from claudemesh.crypto.epoch_record import open_record
from claudemesh.crypto.statements import Body, Statement
from claudemesh.errors import EpochRefused
from claudemesh.peer import channel_contents, contents
from claudemesh.peer.contents import Nack
from claudemesh.peer.epochs import Epochs
from claudemesh.peer.journal import Journal, outbox
from claudemesh.peer.journal import epochs as rows
from claudemesh.peer.journal.outbox import Draft
from claudemesh.peer.membership import Membership
from claudemesh.peer.runtime import Runtime
from claudemesh.protocol.epoch_handover import offer_repair, take_repair
from claudemesh.protocol.epoch_rules import check_place
from claudemesh.protocol.epochs import HeldEpoch
from claudemesh.protocol.roster import Relation
from claudemesh.types import Digest, MeshId, MessageId, PeerId, UnixMillis

_TOPIC_DIGITS: Final = 32


def topic_of(epoch: str) -> MessageId:
    """What a nack about an epoch names instead of a message: the first half of its id."""
    return MessageId(epoch[:_TOPIC_DIGITS])


class Repairs:
    """What this peer asked others for."""

    def __init__(self, membership: Membership, epochs: Epochs, journal: Journal, runtime: Runtime) -> None:
        self._membership = membership
        self._epochs = epochs
        self._journal = journal
        self._runtime = runtime
        self._asked: set[tuple[PeerId, str]] = set()
        self._wanted: dict[Digest, Statement] = {}

    async def load(self) -> None:
        """Read from the journal whom was asked for what."""
        mesh = self._membership.mesh
        self._asked, wanted = await self._journal.read(lambda c: (rows.load_asked(c, mesh), rows.load_wanted(c, mesh)))
        for statement in wanted:
            self.want(statement)

    def want(self, statement: Statement) -> None:
        """A signed record is stored whose slot did not open."""
        self._wanted[open_record(statement).id] = statement

    def asked(self, peer: PeerId, epoch: str) -> None:
        """A nack to `peer` about an epoch is in the outbox."""
        self._asked.add((peer, topic_of(epoch)))

    def question(self, peer: PeerId, epoch: str) -> Draft:
        """Ask a member for the secret of an epoch."""
        nack = Nack(topic_of(epoch), "no_epoch_key", Digest(epoch))
        return self._draft(peer, contents.NACK, contents.write_nack(nack))

    def answer(self, asker: PeerId, epoch: Digest) -> "SlotGiven | Nothing":
        """Answer a peer that lacks an epoch's secret.

        Raises:
            EpochRefused: `not_entitled`.
        """
        held = self._epochs.find(epoch)
        if held is None:
            return Nothing()
        body = channel_contents.write_body(offer_repair(held, asker, self._membership.roster))
        return SlotGiven(asker, epoch, self._draft(asker, channel_contents.SLOT, body), self._runtime.now())

    def take(self, body: Body, giver: PeerId) -> "EpochTaken":
        """Check a secret that a member sent.

        Raises:
            Malformed: It has another form.
            EpochRefused: `not_entitled` nobody asked this peer, or it is not for us; `epoch`, `epoch_author`,
                `epoch_commit`.
        """
        roster, now = self._membership.roster, self._runtime.now()
        statement = self._wanted.get(Digest(str(body.get("ep"))))
        announced = None if statement is None else open_record(statement)
        held = take_repair(body, self._membership.mesh, now, announced)
        if (giver, topic_of(held.id)) not in self._asked:
            raise EpochRefused("not_entitled", "it was not asked for")
        if roster.relate(held.record.roster_seq, held.record.roster_head) is not Relation.KNOWN:
            raise EpochRefused("epoch", "of another roster")
        check_place(held.record, roster)
        return EpochTaken(self._epochs, held, statement)

    def _draft(self, peer: PeerId, content_type: str, body: bytes) -> Draft:
        return Draft(
            message_id=MessageId(self._runtime.entropy(16).hex()),
            peer=peer,
            content_type=content_type,
            body=body,
            created_at=self._runtime.now(),
            priority="next",
            intent="ack",
        )


@dataclass(frozen=True, slots=True)
class EpochTaken:
    """A secret that came by way of a member."""

    epochs: Epochs
    held: HeldEpoch
    statement: Statement | None = None
    """The signed record, where that had come: the epoch is then as good as if its slot had opened."""

    def record(self, connection: sqlite3.Connection, mesh: MeshId, now: UnixMillis) -> bool:
        """Store it."""
        self.epochs.save(connection, self.held, self.statement)
        return False

    def settle(self) -> None:
        """Read with it."""
        self.epochs.hold(self.held)


@dataclass(frozen=True, slots=True)
class SlotGiven:
    """A secret that is handed to a peer that asked for it."""

    asker: PeerId
    epoch: Digest
    draft: Draft
    at: UnixMillis

    def record(self, connection: sqlite3.Connection, mesh: MeshId, now: UnixMillis) -> bool:
        """Queue the answer, unless this peer got one for this epoch before."""
        if not rows.note_given(connection, mesh, self.asker, self.epoch, self.at):
            return False
        outbox.enqueue(connection, mesh, [self.draft])
        return True

    def settle(self) -> None:
        """Nothing in memory changes."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """Nothing follows from a message."""

    def record(self, connection: sqlite3.Connection, mesh: MeshId, now: UnixMillis) -> bool:
        """Nothing is stored."""
        return False

    def settle(self) -> None:
        """Nothing in memory changes."""
