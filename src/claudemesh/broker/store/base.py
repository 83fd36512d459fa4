"""The contract of a store: everything durable that a broker has (docs/spec/audit.md for its audit rows).

Payloads, roster entries, cards and attestations are opaque bytes to the store. A call that returns has been
committed to disk; a call that raises took no effect. Calls may run concurrently; each is one transaction,
and those that wait at the same time share a commit. The clock is an argument.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NewType, Protocol

import msgspec

from claudemesh.protocol.audit_rows import EventType, Reason
from claudemesh.types import ChannelId, Digest, MeshId, MessageId, PeerId, Priority, SessionId, UnixMillis

LinkId = NewType("LinkId", int)
"""One open link of this broker process; a number is never used for a second link."""
Kind = Literal["dm", "post", "epoch", "sys"]
"""A direct message, a channel message, a channel's epoch, or a notice of the broker."""
SharedKind = Literal["post", "epoch"]
"""What goes into many mailboxes."""


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


class Undelivered(msgspec.Struct, frozen=True, gc=False):
    """An envelope that left its mailbox without an acknowledgement: it expired, or `to` was revoked."""

    mesh: MeshId
    to: PeerId
    sender: PeerId
    id: MessageId


class Expired(msgspec.Struct, frozen=True, gc=False):
    """What one call of `expire` deleted: how many rows, and the envelopes among them whose senders were told."""

    rows: int
    letters: Sequence[Undelivered]


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What one mailbox holds."""

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


class Store(Protocol):
    """Everything durable that a broker has.

    Every method may raise `LocalError`: `disk` when the disk is full or fails, `journal_damaged` when the database is
    corrupt. Nothing of that call took effect then, and the store can be called again.
    """

    async def open(self) -> None:
        """Open the database and bring its schema up to date.

        Raises:
            LocalError: `newer_schema`, `journal_damaged`, `disk`, `config_mode` (others can read the file),
                `config_locked` (another process has it).
        """

    async def close(self) -> None:
        """Finish what was called, then close. Nothing may be called afterwards."""

    async def ping(self) -> None:
        """Commit a real write, so that readiness means that a message would be stored."""

    # Mailboxes

    async def append(self, submissions: Sequence[Submission], now: UnixMillis) -> list[Stored]:
        """Store envelopes, in order, each with one audit row `send`.

        A submission whose (mesh, to, sender, id) is stored already, or stands earlier in the same call, gets
        the first one's answer. A few large calls cost less than many small ones: gather while one is under way.
        """

    async def fan_out(self, fan_outs: Sequence[FanOut], now: UnixMillis) -> list[FannedOut]:
        """Store channel messages and epochs, in order: the payload once, a row in each mailbox, one audit row.

        One that has no recipients is only audited. While a row of it is stored, the same (mesh, sender, kind, channel,
        id) gets the first answer and stores nothing.
        """

    async def lease(self, mesh: MeshId, peer: PeerId, link: LinkId, now: UnixMillis, limit: int) -> list[Leased]:
        """Lease to `link` the oldest rows of a mailbox that are due and not leased, at most `limit`, by ascending q.

        A link has to call this before a `Submission.lease` can name it; with nothing waiting it just registers.
        """

    async def release(self, link: LinkId) -> None:
        """End every lease of a link that has ended, and its right to get one by `Submission.lease`."""

    async def acknowledge(self, mesh: MeshId, peer: PeerId, qs: Sequence[int], now: UnixMillis) -> int:
        """`acknowledge_many` for one mailbox."""

    async def acknowledge_many(self, acks: Sequence[Acknowledgement], now: UnixMillis) -> list[int]:
        """Delete rows that their peers have recorded; returns how many there were, for each of `acks`.

        Numbers that are unknown or belong to another mailbox are ignored, so it may be repeated. One audit row
        `acknowledge` with the count for each of `acks`, none when its count is zero.
        """

    async def next_due(self, now: UnixMillis) -> UnixMillis | None:
        """The earliest `not_before` after `now`, or None: when a mailbox has to be leased again."""

    async def due(self, after: UnixMillis, until: UnixMillis) -> list[tuple[MeshId, PeerId]]:
        """Mailboxes with rows whose `not_before` lies in (after, until]: those to lease from when the timer rings."""

    async def expire(self, now: UnixMillis, limit: int, notice: Notice) -> Expired:
        """Delete up to `limit` rows whose time has passed, oldest first; a sender of direct messages gets a notice.

        One audit row `expire` per envelope, and one with the count for all rows of one sender's posts and epochs.
        Expired notices, posts and epochs go without a word.
        """

    async def drop_mailbox(self, mesh: MeshId, peer: PeerId, now: UnixMillis, notice: Notice) -> list[Undelivered]:
        """Delete the whole mailbox of a revoked peer and its subscriptions; audited as one `drop`.

        The senders of direct messages get a notice.
        """

    async def drop_channel(self, mesh: MeshId, peer: PeerId, channel: ChannelId, now: UnixMillis) -> int:
        """Delete what waits for a peer of a channel that it has left, and its subscription; returns how many rows.

        Audited as one `drop` with the count, unless there was nothing. Nobody is told.
        """

    async def mailbox_usage(self, mesh: MeshId, peer: PeerId) -> Usage:
        """What a mailbox holds, everything committed included; answered from memory as a rule."""

    async def mailbox_usages(self, mesh: MeshId, peers: Sequence[PeerId]) -> list[Usage]:
        """`mailbox_usage` of each of `peers`."""

    # Subscriptions

    async def subscribe(self, mesh: MeshId, channel: ChannelId, peer: PeerId, wanted: bool | None) -> None:
        """Keep whether a peer wants the posts of a channel; None forgets it, so that the rule holds again."""

    async def subscriptions(self, mesh: MeshId) -> list[Subscription]:
        """Everything that `subscribe` has kept."""

    # Rosters

    async def append_entries(
        self,
        mesh: MeshId,
        expected_seq: int,
        entries: Sequence[bytes],
        now: UnixMillis,
        *,
        actor: PeerId | None,
        served: bool,
    ) -> bool:
        """Append roster entries if the last one stored has `expected_seq` (−1: the mesh does not exist yet).

        Returns False, and does nothing, when it has another: somebody was faster. Sets whether the mesh is served.
        One audit row `append` with the count; `actor` is the peer that uploaded, if it has proven who it is.
        """

    async def entries(self, mesh: MeshId, from_seq: int, limit: int) -> list[bytes]:
        """Roster entries from `from_seq` on, at most `limit`."""

    async def meshes(self) -> list[MeshRow]:
        """Every mesh, the oldest first."""

    async def find_mesh(self, prefix: str) -> MeshId | None:
        """The mesh whose id starts with `prefix` (32 digits in an invite link); None when none does, or several do."""

    async def delete_mesh(self, mesh: MeshId) -> None:
        """Delete a mesh and all that belongs to it, its audit log included."""

    # Cards and attestations

    async def put_card(self, mesh: MeshId, member: PeerId, number: int, card: bytes) -> bool:
        """Keep a member's card if its number is higher than the one kept; returns whether it was."""

    async def cards(self, mesh: MeshId, members: Sequence[PeerId]) -> dict[PeerId, bytes]:
        """The newest card of each of `members` that has one."""

    async def put_attestation(
        self, mesh: MeshId, member: PeerId, digest: Digest, expires_at: UnixMillis, statement: bytes
    ) -> None:
        """Keep an attestation; repeating it changes nothing."""

    async def attestations(self, digests: Sequence[Digest]) -> dict[Digest, bytes]:
        """Those of `digests` that are kept."""

    async def expire_attestations(self, now: UnixMillis) -> int:
        """Delete attestations that ended longer ago than an envelope may be queued; returns how many."""

    # Presence

    async def set_presence(self, sessions: Sequence[SessionRow]) -> None:
        """Announce sessions, or replace what was announced of them."""

    async def touch_presence(self, links: Sequence[LinkId], now: UnixMillis) -> None:
        """Renew the presence lease of every session of these links."""

    async def end_session(self, mesh: MeshId, peer: PeerId, session: SessionId) -> None:
        """Remove one session; when it was last seen is kept for its peer."""

    async def clear_presence(self, link: LinkId) -> None:
        """Remove the sessions of a link that has ended; when they were last seen is kept for their peer."""

    async def expire_presence(self, before: UnixMillis) -> list[SessionRow]:
        """Remove the sessions last seen before `before` and return them."""

    async def presence(self, mesh: MeshId) -> list[SessionRow]:
        """The sessions that are connected now."""

    async def last_seen(self, mesh: MeshId) -> dict[PeerId, UnixMillis]:
        """When each peer was last heard from, connected or not."""

    # Audit log

    async def audit(self, events: Sequence[AuditEvent], now: UnixMillis) -> None:
        """Record events in order. Whoever can cause events at will must be counted, not given a row each."""

    async def audit_rows(self, mesh: MeshId, from_n: int, limit: int) -> list[str]:
        """Audit rows from number `from_n` on, at most `limit`, as the canonical JSON that the chain hashes."""

    async def audit_head(self, mesh: MeshId) -> tuple[int, Digest]:
        """How many audit rows a mesh has, and the hash of the last one (zeroes when there is none)."""
