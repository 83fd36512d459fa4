"""What a batch of envelopes came to, before any of it is durable; and what follows once it is.

`judging` makes the parts, `recording` writes them in one transaction.
"""

import sqlite3
from dataclasses import dataclass, field
from typing import Protocol

from claudemesh.crypto import statements
from claudemesh.crypto.statements import Statement
from claudemesh.database import BRIEF_BYTES
from claudemesh.errors import EnvelopeRefused, Malformed
from claudemesh.peer import contents, events
from claudemesh.peer.contents import Nack, Profile, Receipt
from claudemesh.peer.grants import Allow, Refuse
from claudemesh.peer.journal.channels import ChannelWindowRow
from claudemesh.peer.journal.epochs import ParkedDraft
from claudemesh.peer.journal.keys import WindowRow
from claudemesh.peer.journal.outbox import Draft
from claudemesh.peer.journal.timeline import Evidence, Recorded
from claudemesh.peer.quiet import Quiet
from claudemesh.peer.receiving import Authentic
from claudemesh.protocol.delivery import Claim, Stage, Witness
from claudemesh.protocol.epochs import HeldEpoch
from claudemesh.protocol.loops import Hold
from claudemesh.protocol.messages import SYS_FIELDS, SYS_OPTIONAL
from claudemesh.types import BrokerId, MeshId, MessageId, PeerId, UnixMillis


class Effect(Protocol):
    """What a message that serves channels changes: first in the journal, then, once that is durable, in memory."""

    def record(self, connection: sqlite3.Connection, mesh: MeshId, now: UnixMillis) -> bool:
        """Write it, maybe more than once; returns whether there is something new in the outbox."""
        ...

    def settle(self) -> None:
        """It is durable."""
        ...


Content = str | list[Receipt] | Nack | Profile | Effect


@dataclass(frozen=True, slots=True)
class Judged:
    """A message that passed every check, with its content read."""

    message: Authentic
    content: Content
    accepted_at: UnixMillis
    permit: Allow | Refuse
    """What this machine decided about texts of its sender."""
    is_confirmed: bool = True
    """Whether its sender gets a receipt; posts in large channels are not confirmed one by one."""
    hold: Hold | None = None
    """Why a person decides whether anybody here gets it."""


@dataclass(frozen=True, slots=True)
class Unopened:
    """An envelope refused for good; `nack` is sent once when its sender can mend it."""

    code: str
    sender: str
    message_id: str
    """As the envelope names it: signed where the code is `replay`, else a hint."""
    nack: Draft | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """The broker's signed word that a message of ours ended in its mailbox."""

    claim: Claim
    message_id: MessageId
    peer: PeerId
    at: UnixMillis
    detail: str
    evidence: Evidence
    signer: BrokerId


@dataclass(frozen=True, slots=True)
class TakenEpoch:
    """An epoch whose slot opened."""

    held: HeldEpoch
    statement: Statement


@dataclass(slots=True)
class Batch:
    """Everything that is recorded together."""

    judged: list[Judged] = field(default_factory=list)
    unopened: list[Unopened] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    epochs: list[TakenEpoch] = field(default_factory=list)
    wanted: list[Statement] = field(default_factory=list)
    """Signed records whose slots did not open."""
    parked: list[tuple[ParkedDraft, Draft]] = field(default_factory=list)
    """Posts that wait for their epoch, each with the question for its secret."""
    unparked: list[int] = field(default_factory=list)
    channel_windows: list[ChannelWindowRow] = field(default_factory=list)
    windows: list[WindowRow] = field(default_factory=list)
    attestations: list[tuple[str, UnixMillis, Statement]] = field(default_factory=list)
    quiet: Quiet = field(default_factory=Quiet)
    """What is quiet here while the batch is recorded."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (
            self.judged or self.unopened or self.notices or self.epochs or self.wanted or self.parked or self.unparked
        )

    @property
    def is_brief(self) -> bool:
        """Whether it is few messages, and nothing but messages."""
        if self.unopened or self.epochs or self.wanted or self.parked or self.unparked:
            return False
        return sum(len(one.message.opened.frame) for one in self.judged) <= BRIEF_BYTES


@dataclass(slots=True)
class Outcomes:
    """What follows once the batch is durable."""

    arrived: list[events.MessageArrived] = field(default_factory=list)
    held: list[events.MessageHeld] = field(default_factory=list)
    recorded: list[Recorded | None] = field(default_factory=list)
    refused: list[events.EnvelopeRefused] = field(default_factory=list)
    profiles: list[tuple[PeerId, Profile]] = field(default_factory=list)
    receipts_due: bool = False
    outbox_changed: bool = False


def read_content(message: Authentic) -> Content:
    """Read the body by its content type.

    Raises:
        Malformed: The body is not what the type says.
        EnvelopeRefused: `unsupported_content`.
    """
    body = message.opened.body
    match message.header["ct"]:
        case contents.TEXT:
            try:
                return body.decode()
            except UnicodeDecodeError as error:
                raise Malformed("frame", "the text is not UTF-8") from error
        case contents.RECEIPT:
            return contents.read_receipts(body)
        case contents.NACK:
            return contents.read_nack(body)
        case contents.PROFILE:
            return contents.read_profile(body)
        case _:
            raise EnvelopeRefused("unsupported_content")


def read_notice(statement: Statement, mesh: MeshId, broker: BrokerId) -> Notice:
    """Verify a broker's notice in the mailbox; raises `Invalid` when it is not this broker's word about a message."""
    body = statements.open_statement(statement, "sys", broker)
    statements.check_fields(body, SYS_FIELDS, SYS_OPTIONAL)
    stages = {"expired": Stage.EXPIRED, "revoked": Stage.REFUSED, "mailbox_full": Stage.REFUSED}
    if body["mesh"] != mesh or body["ev"] not in stages or "id" not in body:
        raise Malformed("stmt", "not a notice about a message")
    return Notice(
        claim=Claim(stages[body["ev"]], Witness.BROKER),
        message_id=body["id"],
        peer=body["who"],
        at=body["at"],
        detail=body["ev"],
        evidence=Evidence("statement", statement.b.encode(), bytes.fromhex(statement.s)),
        signer=broker,
    )
