"""The contract of a store: everything durable that a broker has (docs/spec/audit.md for its audit rows).

Payloads, roster entries, cards and attestations are opaque bytes to the store. A call that returns has been
committed to disk; a call that raises took no effect, unless its code is one of `UNCERTAIN`. Calls may run
concurrently; each is one transaction, and those that wait at the same time share a commit. The clock is an argument.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from claudemesh.broker.store.rows import (
    Acknowledgement,
    AuditEvent,
    Beat,
    Expired,
    FannedOut,
    FanOut,
    HeadRow,
    Kind,
    Leased,
    LinkId,
    MeshEnd,
    MeshRow,
    Node,
    NodeId,
    Notice,
    Outdated,
    Recipient,
    SessionRow,
    SharedKind,
    Stored,
    Submission,
    Subscription,
    Told,
    Undelivered,
    Usage,
    Version,
)
from claudemesh.types import BrokerId, ChannelId, Digest, MeshId, PeerId, SessionId, UnixMillis

__all__ = [
    "UNCERTAIN",
    "Acknowledgement",
    "AuditEvent",
    "Beat",
    "Expired",
    "FanOut",
    "FannedOut",
    "HeadRow",
    "Kind",
    "Leased",
    "LinkId",
    "MeshEnd",
    "MeshRow",
    "Node",
    "NodeId",
    "Notice",
    "Outdated",
    "Recipient",
    "SessionRow",
    "SharedKind",
    "Store",
    "Stored",
    "Submission",
    "Subscription",
    "Told",
    "Undelivered",
    "Usage",
    "Version",
]


UNCERTAIN: Final = ("database_unreachable",)
"""Codes of a `LocalError` after which nobody knows whether a commit took effect."""


class Store(Protocol):
    """Everything durable that a broker has.

    Every method may raise `LocalError`: `disk` when the disk is full or fails, `journal_damaged` when the database is
    corrupt. Nothing of that call took effect then, and the store can be called again. So it can after one of
    `UNCERTAIN`, but then that call may have taken effect.
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

    # Nodes

    async def join(self, broker: BrokerId, *, alone: bool) -> Node:
        """Become a node of this store.

        Args:
            broker: The key that this node signs with: the same for all nodes.
            alone: Whether no other node may use the store meanwhile.

        Raises:
            LocalError: `node_key` a live node signs with another key; `config_locked` another node is alive, and it
                or this one wants to be alone. Nothing was changed.
        """

    async def beat(self, node: NodeId, lapse_ms: int | None) -> Beat:
        """Say that a node lives, by the clock of the store, and bury those that have not said so for `lapse_ms`.

        The leases and sessions of a buried node end; None buries nobody. A node that was buried itself stays so.
        """

    async def leave(self, node: NodeId) -> None:
        """A node ends: its leases and sessions end now. A number that is unknown, or buried, is ignored."""

    # Mailboxes

    async def append(
        self, submissions: Sequence[Submission], now: UnixMillis, expected: Mapping[MeshId, Version] | None = None
    ) -> list[Stored]:
        """Store envelopes, in order, each with one audit row `send`.

        A submission whose (mesh, to, sender, id) is stored already, or stands earlier in the same call, gets
        the first one's answer. A few large calls cost less than many small ones: gather while one is under way.

        Args:
            expected: At which version each mesh of the call must be, where several nodes write.

        Raises:
            Outdated: A mesh is at another version.
        """

    async def fan_out(
        self, fan_outs: Sequence[FanOut], now: UnixMillis, expected: Mapping[MeshId, Version] | None = None
    ) -> list[FannedOut]:
        """Store channel messages and epochs, in order: the payload once, a row in each mailbox, one audit row.

        The sender gets its notices with them. One that has no recipients is only audited. While a row of it is stored,
        the same (mesh, sender, kind, channel, id) gets the first answer and stores nothing. `expected` and `Outdated`
        are those of `append`.
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

    async def waiting(self, mailboxes: Sequence[tuple[MeshId, PeerId]], now: UnixMillis) -> list[tuple[MeshId, PeerId]]:
        """Which of these mailboxes hold a row that is due and leased to nobody."""

    async def expire(self, now: UnixMillis, limit: int, notice: Notice) -> Expired:
        """Delete up to `limit` rows whose time has passed, oldest first; a sender of direct messages gets a notice.

        One audit row `expire` per envelope, and one with the count for all rows of one sender's posts and epochs.
        Expired notices, posts and epochs go without a word.
        """

    async def drop_mailbox(self, mesh: MeshId, peer: PeerId, now: UnixMillis, notice: Notice) -> list[Undelivered]:
        """Delete the whole mailbox of a revoked peer and its subscriptions; audited as one `drop`.

        The senders of direct messages get a notice.
        """

    async def drop_sent(self, mesh: MeshId, peer: PeerId, now: UnixMillis, limit: int) -> int:
        """Delete up to `limit` direct messages and posts of a revoked peer that wait for others; returns how many.

        Epochs stay: what others have sealed under them is still read. Audited as one `drop` with the count, unless
        there was nothing. Nobody is told.
        """

    async def drop_channel(self, mesh: MeshId, peer: PeerId, channel: ChannelId, now: UnixMillis) -> int:
        """Delete what waits for a peer of a channel that it has left, and its subscription; returns how many rows.

        Audited as one `drop` with the count, unless there was nothing. Nobody is told.
        """

    async def mailbox_usage(self, mesh: MeshId, peer: PeerId) -> Usage:
        """What a mailbox holds, all that was committed through this object included; from memory as a rule.

        What other nodes have committed is in it after two seconds at the latest.
        """

    async def mailbox_usages(self, mesh: MeshId, peers: Sequence[PeerId]) -> list[Usage]:
        """`mailbox_usage` of each of `peers`."""

    async def mailbox_senders(self, mesh: MeshId, peer: PeerId) -> dict[PeerId, tuple[int, int]]:
        """Rows and bytes of each sender in a mailbox, without notices; every row is looked at, by each call."""

    async def mesh_usage(self, mesh: MeshId) -> Usage:
        """What all mailboxes of a mesh hold together, as `mailbox_usage`; from memory as a rule.

        What other nodes have committed is in it after half a minute.
        """

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
        head: HeadRow | None = None,
    ) -> bool:
        """Append roster entries if the last one stored has `expected_seq` (−1: the mesh does not exist yet).

        Returns False, and does nothing, when it has another: somebody was faster. Sets whether the mesh is served.
        One audit row `append` with the count; `actor` is the peer that uploaded, if it has proven who it is. `head`,
        for the last of `entries`, is kept with them: no node ever hands out another one for that length.
        """

    async def mesh_ends(self, meshes: Sequence[MeshId]) -> dict[MeshId, MeshEnd]:
        """Where meshes are now; those that are not held are left out."""

    async def renew_head(self, mesh: MeshId, head: HeadRow, older_than: UnixMillis) -> HeadRow | None:
        """Keep a newer signature, if the roster ends at its seq and what is kept was signed before `older_than`.

        Returns the head that is kept now, of whatever seq; None when there is none.
        """

    async def entries(self, mesh: MeshId, from_seq: int, limit: int) -> list[bytes]:
        """Roster entries from `from_seq` on, at most `limit`."""

    async def meshes(self) -> list[MeshRow]:
        """Every mesh, the oldest first."""

    async def find_mesh(self, prefix: str) -> MeshId | None:
        """The mesh whose id starts with `prefix` (32 digits in an invite link); None when none does, or several do."""

    async def delete_mesh(self, mesh: MeshId, *, unserved_before: UnixMillis) -> bool:
        """Delete a mesh and all that belongs to it, its audit log included, if it is not served and that old.

        Returns whether it was: another node may have been told meanwhile that it is to be served.
        """

    # Cards and attestations

    async def put_card(self, mesh: MeshId, member: PeerId, number: int, card: bytes) -> bool:
        """Keep a member's card if its number is higher than the one kept; returns whether it was."""

    async def cards(self, mesh: MeshId, members: Sequence[PeerId]) -> dict[PeerId, bytes]:
        """The newest card of each of `members` that has one."""

    async def put_attestation(
        self,
        mesh: MeshId,
        member: PeerId,
        digest: Digest,
        expires_at: UnixMillis,
        statement: bytes,
        *,
        session: SessionId,
    ) -> None:
        """Keep an attestation of `session`; repeating it changes nothing."""

    async def session_attestations(self, mesh: MeshId, sessions: Sequence[SessionId]) -> dict[SessionId, bytes]:
        """Of each of `sessions` the attestation that is kept and ends last."""

    async def attestations(self, digests: Sequence[Digest]) -> dict[Digest, bytes]:
        """Those of `digests` that are kept."""

    async def expire_attestations(self, now: UnixMillis) -> int:
        """Delete attestations that ended longer ago than an envelope may be queued; returns how many."""

    # Presence

    async def set_presence(self, sessions: Sequence[SessionRow]) -> None:
        """Announce sessions, or replace what was announced of them."""

    async def take_over(self, session: SessionRow) -> LinkId | None:
        """Announce the session of a link that has just opened: a session has one link.

        Returns the link that had it before, on whatever node, whose leases and announcements have ended; None when
        there was none.
        """

    async def set_statuses(self, statuses: Sequence[tuple[LinkId, SessionId, str]]) -> None:
        """Change what sessions of these links say of themselves; one that another link has now is left alone."""

    async def arrive(self, mesh: MeshId, peer: PeerId) -> bool:
        """A peer has announced a session. Returns whether it was absent before: one of many callers is told so."""

    async def depart(self, mesh: MeshId, peer: PeerId) -> bool:
        """A peer is absent from now on. Returns whether it was present: one of many callers is told so."""

    async def depart_absent(self, before: UnixMillis, limit: int) -> list[tuple[MeshId, PeerId]]:
        """Peers that had arrived, have no session now and were last seen before `before` are absent from now on.

        Each is returned to one caller.
        """

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
