"""What goes into a store and comes out of it (docs/spec/audit.md for its audit rows)."""

from collections.abc import Callable, Sequence
from typing import Literal, NewType

import msgspec

from claudemesh.protocol.audit_rows import EventType, Reason
from claudemesh.types import ChannelId, Digest, MeshId, MessageId, PeerId, Priority, SessionId, UnixMillis

NodeId = NewType("NodeId", int)
"""One process of a broker; a number is never used for a second one."""
LinkId = NewType("LinkId", int)
"""One open link of one node; a number is never used for a second link, on whatever node."""
Kind = Literal["dm", "post", "epoch", "sys"]
"""A direct message, a channel message, a channel's epoch, or a notice of the broker."""
SharedKind = Literal["post", "epoch"]
"""What goes into many mailboxes."""


class Node(msgspec.Struct, frozen=True, gc=False):
    """A process that has joined: its number, and the first of the numbers of its links."""

    id: NodeId
    first_link: LinkId


class Beat(msgspec.Struct, frozen=True, gc=False):
    """What a heartbeat found: the clock of the store, whether this node counts as alive, how many were buried by it."""

    at: UnixMillis
    is_alive: bool
    buried: int


class Version(msgspec.Struct, frozen=True, gc=False):
    """What of a mesh another node may change: how long its roster is, and how often its subscriptions have changed."""

    length: int
    wishes: int


class HeadRow(msgspec.Struct, frozen=True, gc=False):
    """The signed head of a roster: for which seq, when it was signed, and the statement as JSON."""

    seq: int
    at: UnixMillis
    statement: bytes


class MeshEnd(msgspec.Struct, frozen=True, gc=False):
    """Where a mesh is now; it has no signed head when nobody has kept one."""

    version: Version
    head: HeadRow | None


class Outdated(Exception):
    """Some meshes are not at the version under which a call was admitted. Nothing was stored."""

    def __init__(self, meshes: frozenset[MeshId]) -> None:
        super().__init__(f"{len(meshes)} meshes")
        self.meshes = meshes


class Submission(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One envelope for one mailbox, admitted by policy."""

    mesh: MeshId
    to: PeerId
    sender: PeerId
    id: MessageId
    priority: Priority
    size: int
    """Bytes that count against the mailbox's quota; the audit log gets only their class."""
    expires_at: UnixMillis
    attestation: Digest | None
    """Digest of the session attestation that goes with it."""
    payload: bytes
    not_before: UnixMillis | None = None
    lease: LinkId | None = None
    """The recipient's open link, when the caller will push the envelope itself as soon as it is stored."""


class Stored(msgspec.Struct, frozen=True, gc=False):
    """The answer to a submission; a duplicate gets the answer that the first one got.

    `leased` says that the row is leased to the link of the submission: push it now. It is false for a duplicate,
    for a row that is not due yet, and when the link has ended or has never called `lease`.
    """

    q: int
    duplicate: bool
    leased: bool
    audit_n: int
    audit_hash: Digest
    accepted_at: UnixMillis


class Recipient(msgspec.Struct, frozen=True, gc=False):
    """One of the mailboxes that something goes into."""

    peer: PeerId
    lease: LinkId | None = None
    """As in `Submission`."""
    slot: str = ""
    """This peer's slot of an epoch."""


class Undelivered(msgspec.Struct, frozen=True, gc=False):
    """A message that `to` will not get: it expired, its recipient was revoked, or it met a mailbox that is full."""

    mesh: MeshId
    to: PeerId
    sender: PeerId
    id: MessageId


Told = tuple[Undelivered, bytes]
"""What became of a message at one recipient, and the broker's statement of it for the sender's mailbox."""


class FanOut(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One channel message, or one epoch, for many mailboxes; admitted by policy."""

    mesh: MeshId
    sender: PeerId
    kind: SharedKind
    channel: ChannelId
    """The channel of a message, the scope of an epoch."""
    id: str
    """Of the message, or of the epoch."""
    priority: Priority | None
    size: int
    """Bytes that count against the quota of each mailbox, although the payload is stored once."""
    expires_at: UnixMillis
    attestation: Digest
    payload: bytes
    recipients: Sequence[Recipient]
    """Each peer once; may be empty."""
    not_before: UnixMillis | None = None
    notices: Sequence[Told] = ()
    """Whom it misses, for its sender's mailbox."""


class FannedOut(msgspec.Struct, frozen=True, gc=False):
    """The answer to a `FanOut`: for each recipient, in their order, its row and whether it is leased.

    A duplicate gets the audit row and the time of the first one, and no rows.
    """

    qs: Sequence[int]
    leased: Sequence[bool]
    duplicate: bool
    audit_n: int
    audit_hash: Digest
    accepted_at: UnixMillis


class Leased(msgspec.Struct, frozen=True, gc=False):
    """One mailbox row that now belongs to one link until that link acknowledges it or ends."""

    q: int
    accepted_at: UnixMillis
    kind: Kind
    payload: bytes
    attestation: Digest | None
    slot: str = ""


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Rows of one mailbox that its peer has recorded."""

    mesh: MeshId
    peer: PeerId
    qs: Sequence[int]


class Expired(msgspec.Struct, frozen=True, gc=False):
    """What one call of `expire` deleted: how many rows, and the envelopes among them whose senders were told."""

    rows: int
    letters: Sequence[Undelivered]


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What one mailbox, or all of a mesh, holds; a payload that mailboxes share counts in each."""

    rows: int
    size: int


class Subscription(msgspec.Struct, frozen=True, gc=False):
    """That a peer wants, or does not want, the posts of a channel, where that is not the rule."""

    channel: ChannelId
    peer: PeerId
    wanted: bool


class MeshRow(msgspec.Struct, frozen=True, gc=False):
    """One mesh: whether this broker serves it, and how many roster entries it holds."""

    mesh: MeshId
    served: bool
    length: int
    created_at: UnixMillis


class SessionRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One connected session, as its link announced it."""

    mesh: MeshId
    peer: PeerId
    session: SessionId
    link: LinkId
    connected_at: UnixMillis
    last_seen: UnixMillis
    status: str = "idle"
    sid: str = ""
    pid: int = 0
    cwd: str = ""


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something to record in a mesh's audit log, such as `connect`; what the store itself does it records itself."""

    mesh: MeshId
    event_type: EventType
    actor: PeerId | None = None
    target: PeerId | None = None
    priority: Priority | None = None
    count: int | None = None
    reason: Reason | None = None


Notice = Callable[[Undelivered], bytes]
"""Makes the payload of the `sys` row that tells a sender about one undelivered envelope.

It is called inside the transaction, on the store's own thread, and possibly twice for one envelope: it may only
compute (sign). It raises nothing.
"""
