"""What the public calls return: plain values, with addresses for people and keys for programs."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from claudemesh.peer.journal.inbox import InboxRow
from claudemesh.protocol.delivery import Claim, Stage, Witness
from claudemesh.types import (
    BrokerId,
    Digest,
    Intent,
    InviteId,
    MeshId,
    MessageId,
    PeerId,
    Priority,
    Role,
    SessionId,
    UnixMillis,
    UserId,
)


@dataclass(frozen=True, slots=True)
class Submitted:
    """A message that is in the outbox: it goes out by itself, whatever happens to this process."""

    id: MessageId
    peers: tuple[PeerId, ...]
    stage: Stage


@dataclass(frozen=True, slots=True)
class Received:
    """A message from the inbox: who sent it is verified, what it says is not."""

    number: int
    """Its row in the inbox; grows with each arrival."""
    id: MessageId
    text: str
    sender: str
    """An address of the sender, for people and for replies."""
    sender_id: PeerId
    sender_session: SessionId
    session: SessionId | None
    """The session of ours that it was addressed to; None: the peer as such."""
    priority: Priority
    intent: Intent | None
    reply_to: MessageId | None
    sent_at: UnixMillis
    """By the sender's clock, signed."""
    accepted_at: UnixMillis
    """By the broker's clock."""
    received_at: UnixMillis
    expires_at: UnixMillis | None
    seen_at: UnixMillis | None


@dataclass(frozen=True, slots=True)
class Step:
    """One stage that a message reached at one recipient, and who says so."""

    stage: Stage
    witness: Witness
    at: UnixMillis
    signer: str
    detail: str
    evidence: int | None
    """Number of the signed bytes that prove it, for `Peer.evidence`."""


@dataclass(frozen=True, slots=True)
class RecipientStatus:
    """How far a message came at one recipient."""

    peer: PeerId
    address: str
    shown: Claim
    """The furthest stage that is known, and who says so."""
    steps: tuple[Step, ...]

    @property
    def stage(self) -> Stage:
        return self.shown.stage


@dataclass(frozen=True, slots=True)
class MessageStatus:
    """A message that this peer sent, and its timeline at every recipient."""

    id: MessageId
    text: str
    priority: Priority
    created_at: UnixMillis
    expires_at: UnixMillis | None
    reply_to: MessageId | None
    recipients: tuple[RecipientStatus, ...]


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session of a peer: named by its peer, connected as the broker says."""

    id: SessionId
    label: str
    status: str
    online: bool


@dataclass(frozen=True, slots=True)
class PeerView:
    """A peer of the mesh."""

    id: PeerId
    user: UserId
    address: str
    name: str
    device: str
    role: Role
    own: bool
    """Whether it is a peer of our own user."""
    me: bool
    online: bool
    last_seen: UnixMillis
    """By the broker's word; 0: never."""
    sessions: tuple[SessionView, ...]


@dataclass(frozen=True, slots=True)
class InviteView:
    """An invite of the roster."""

    id: InviteId
    issuer: PeerId
    state: str
    used: int
    uses: int
    role: Role
    expires_at: UnixMillis
    for_user: UserId | None
    admitted: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class MeshView:
    """A mesh as this peer holds it."""

    id: MeshId
    alias: str
    seq: int
    head: Digest
    head_at: UnixMillis
    """When the broker signed the newest head; 0: never seen."""
    broker: BrokerId
    broker_url: str
    connected: bool
    down: str
    """Why there is no link, empty while there is one."""
    frozen: str
    """The code of the freeze, empty while there is none."""
    audit: str
    """The code of what the broker's audit log contradicted, empty while there is nothing."""
    peers: int
    outbox_open: int
    inbox_unseen: int


def read_row(row: InboxRow, address_of: Callable[[PeerId], str]) -> Received:
    """Show an inbox row; it was verified before it was stored."""
    header_end = 5 + int.from_bytes(row.frame[1:5], "big")
    header: dict[str, Any] = json.loads(row.frame[5:header_end])
    return Received(
        number=row.id,
        id=row.message_id,
        text=row.frame[header_end + 4 :].decode(),
        sender=address_of(row.sender),
        sender_id=row.sender,
        sender_session=header["sess"],
        session=row.session,
        priority=header["prio"],
        intent=header.get("intent"),
        reply_to=row.reply_to,
        sent_at=header["ts"],
        accepted_at=row.accepted_at,
        received_at=row.received_at,
        expires_at=header.get("exp"),
        seen_at=row.seen_at,
    )
