"""What the roster says at its head: peers, users, invites and channels (docs/spec/roster.md §4).

Every question that an entry raises is answered from an index, so an entry costs the same in a log
of ten entries and of a hundred thousand.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final, Literal

from claudemesh.protocol.limits import CLOCK_SKEW_MS, DEVICE_ALLOWANCE
from claudemesh.types import (
    ZERO_DIGEST,
    BoxId,
    BrokerId,
    ChannelId,
    Digest,
    InviteId,
    MeshId,
    PeerId,
    Role,
    UnixMillis,
    UserId,
)

ChannelKind = Literal["open", "private", "group"]
InviteState = Literal["open", "expired", "exhausted", "revoked", "unknown"]

RANK: Final[dict[Role, int]] = {"member": 1, "admin": 2, "owner": 3}
EVERYONE: Final = ChannelId("0" * 32)
"""The built-in channel `*`, and the scope whose epoch all open channels share."""
GENERAL: Final = ChannelId("0" * 31 + "1")
SPACE: Final = ChannelId("0" * 31 + "2")


@dataclass(frozen=True, slots=True)
class Member:
    """A peer that the log has admitted, active or not; it never leaves the log."""

    id: PeerId
    box: BoxId
    user: UserId
    role: Role
    since_seq: int
    invite: InviteId | None
    """The invite that admitted it; None for an owner by genesis or recovery."""
    active: bool = True
    revoked_seq: int | None = None
    card_floor: int = 0
    """Cards with a lower number are void; raised by `rekey`."""
    rekeyed_seq: int | None = None
    """Seq of the last `rekey`: what was sealed before it was sealed to a key that may be stolen."""


@dataclass(frozen=True, slots=True)
class Invite:
    """A key that may admit `uses` peers until `expires_at`."""

    id: InviteId
    issuer: PeerId
    role: Role
    uses: int
    expires_at: UnixMillis
    user: UserId | None
    """The only user that it admits, or None for whoever holds the link."""
    since_seq: int
    devices: int
    """Device-link uses that a user admitted by it may issue in total; 0 for a device link."""
    used: int = 0
    active: bool = True
    lapsed: bool = False
    """Closed after its last moment: its holder came too late, nobody took it back."""


@dataclass(slots=True)
class Channel:
    """A channel or group; only the roster changes it. `members` is empty for an open channel: all are in it."""

    id: ChannelId
    kind: ChannelKind
    creator: PeerId | None
    since_seq: int
    version: int
    """Seq of the last change of its own membership; ask `RosterState.channel_version` for the true one."""
    members: set[PeerId] = field(default_factory=set)
    history: dict[PeerId, list[int]] = field(default_factory=dict)
    """Seqs at which a peer was added, removed, added again …"""


@dataclass(slots=True)
class User:
    """The active peers of one user, and what it may still link."""

    peers: set[PeerId] = field(default_factory=set)
    device_allowance: int = 0
    device_uses_issued: int = 0


class RosterState:
    """The state that the log adds up to, with the questions asked of it. Read-only to everybody but the roster."""

    def __init__(self) -> None:
        self.mesh: MeshId | None = None
        self.seq = -1
        self.head: Digest = ZERO_DIGEST
        self.at = UnixMillis(0)
        """The newest date in the log: its own, monotone clock."""
        self.broker: BrokerId | None = None
        self.broker_url: str | None = None
        self.recovery: str | None = None
        self.members: dict[PeerId, Member] = {}
        self.invites: dict[InviteId, Invite] = {}
        self.users: dict[UserId, User] = {}
        self.channels: dict[ChannelId, Channel] = {
            channel: Channel(channel, "open", None, 0, 0) for channel in (EVERYONE, GENERAL, SPACE)
        }
        self.open_version = 0
        """Seq of the last membership change of the mesh, and so of every open channel."""
        self.recovered_seq = 0
        self.owners: set[PeerId] = set()
        """The active owners; never empty once the log has begun."""
        self.admins: set[PeerId] = set()
        self.open_invites: dict[PeerId, set[InviteId]] = {}
        """By issuer; an expired one may still be among them, see `is_open`."""
        self.closed_channels_of: dict[PeerId, set[ChannelId]] = {}
        self.channels_created: dict[PeerId, int] = {}
        self.broker_changes: list[tuple[int, BrokerId]] = []
        self._digests = bytearray()

    # Peers and users

    def member(self, peer: PeerId) -> Member | None:
        """The peer as the log knows it, active or revoked."""
        return self.members.get(peer)

    def is_active(self, peer: PeerId) -> bool:
        """Whether the peer is admitted and not revoked."""
        member = self.members.get(peer)
        return member is not None and member.active

    def role_of(self, peer: PeerId) -> Role | None:
        """The role of an active peer, else None."""
        member = self.members.get(peer)
        return member.role if member is not None and member.active else None

    def rank_of(self, peer: PeerId) -> int:
        """1 member, 2 admin, 3 owner; 0 for a peer that is not active."""
        role = self.role_of(peer)
        return 0 if role is None else RANK[role]

    def active_members(self) -> list[Member]:
        """Every active peer, in the order of admission."""
        return [member for member in self.members.values() if member.active]

    def admitted_since(self, seq: int) -> list[Member]:
        """The active peers that were admitted after `seq`, in that order; costs as much as there are of them."""
        newest_first = takewhile(lambda member: member.since_seq > seq, reversed(self.members.values()))
        return [member for member in newest_first if member.active][::-1]

    def peers_of_user(self, user: UserId) -> frozenset[PeerId]:
        """The active peers of a user."""
        known = self.users.get(user)
        return frozenset() if known is None else frozenset(known.peers)

    def was_active_at(self, peer: PeerId, seq: int) -> bool:
        """Whether the peer was active when the log ended at `seq`."""
        member = self.members.get(peer)
        if member is None or member.since_seq > seq:
            return False
        return member.revoked_seq is None or member.revoked_seq > seq

    # Invites

    def is_open(self, invite: Invite) -> bool:
        """Whether the log itself still lets `invite` admit somebody, by the log's own clock."""
        return invite.active and invite.used < invite.uses and self.at <= invite.expires_at + CLOCK_SKEW_MS

    def invite_state(self, invite: InviteId, now: UnixMillis) -> InviteState:
        """What a holder of the link can expect at `now`."""
        known = self.invites.get(invite)
        if known is None:
            return "unknown"
        if not known.active:
            return "expired" if known.lapsed else "revoked"
        if known.used >= known.uses:
            return "exhausted"
        return "open" if now <= known.expires_at and self.is_open(known) else "expired"

    def overdue_invites(self, now: UnixMillis) -> list[Invite]:
        """Invites that have expired at `now` and not yet by the log's clock.

        In a log that stands still, somebody with the link could date an admission back to before the end.
        """
        kept = (self.invites[invite] for invites in self.open_invites.values() for invite in invites)
        return [invite for invite in kept if self.is_open(invite) and now > invite.expires_at + CLOCK_SKEW_MS]

    def device_uses_left(self, user: UserId) -> int:
        """How many more device-link uses a user below owner may issue."""
        known = self.users.get(user, User(device_allowance=DEVICE_ALLOWANCE))
        return max(0, known.device_allowance - known.device_uses_issued)

    # Channels

    def scope_of(self, channel: ChannelId) -> ChannelId:
        """The channel whose epoch `channel` uses: all open channels have the same members and share one."""
        return EVERYONE if self.channels[channel].kind == "open" else channel

    def channel_members(self, channel: ChannelId) -> frozenset[PeerId]:
        """The active peers in a channel."""
        known = self.channels[channel]
        if known.kind == "open":
            return frozenset(member.id for member in self.active_members())
        return frozenset(peer for peer in known.members if self.members[peer].active)

    def channel_version(self, channel: ChannelId) -> int:
        """Seq of the channel's last membership change: an older epoch may not be used for sending."""
        known = self.channels[channel]
        if known.kind == "open":
            return self.open_version
        return max(known.version, self.recovered_seq)

    def was_in_channel_at(self, peer: PeerId, channel: ChannelId, seq: int) -> bool:
        """Whether the peer was in the channel when the log ended at `seq`: needed to read, never to send."""
        known = self.channels.get(channel)
        if known is None or seq < known.since_seq or not self.was_active_at(peer, seq):
            return False
        if known.kind == "open":
            return True
        return bisect_right(known.history.get(peer, []), seq) % 2 == 1

    # The chain

    def digest_at(self, seq: int) -> Digest:
        """Hash of entry `seq`, 0 to `self.seq`."""
        if not 0 <= seq <= self.seq:
            raise IndexError(seq)
        return Digest(self._digests[seq * 32 : seq * 32 + 32].hex())

    def broker_at(self, seq: int) -> BrokerId | None:
        """The broker that the log names when it ends at `seq`."""
        index = bisect_right(self.broker_changes, seq, key=lambda change: change[0])
        return self.broker_changes[index - 1][1] if index else None

    def extend_chain(self, digest: Digest, at: UnixMillis) -> None:
        """Move the head to an entry that was applied."""
        self.seq += 1
        self.head = digest
        self.at = max(self.at, at)
        self._digests += bytes.fromhex(digest)
