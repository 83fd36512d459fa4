"""What the public calls return: plain values, with addresses for people and keys for programs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from claudemesh.peer.journal.inbox import InboxRow
from claudemesh.peer.journal.posts import PostRow
from claudemesh.protocol import chains
from claudemesh.protocol.chains import Cause, Chain
from claudemesh.protocol.delivery import Claim, Stage, Witness
from claudemesh.protocol.limits import CLOCK_SKEW_MS
from claudemesh.types import (
    BrokerId,
    ChannelId,
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

_NEVER: Final = UnixMillis(0)


@dataclass(frozen=True, slots=True)
class Reached:
    """A session that a message to a tag goes to."""

    peer: PeerId
    session: SessionId
    address: str
    status: str
    """`idle`, `busy` or `away` as the broker said; empty when it was not connected."""
    id: MessageId
    """Of this copy: a further session of one peer gets a copy with an id of its own."""


@dataclass(frozen=True, slots=True)
class ChannelView:
    """A channel or group of the roster."""

    id: ChannelId
    name: str
    """With its sign; the beginning of the id while nobody has told a name."""
    kind: Literal["open", "private", "group"]
    topic: str
    creator: PeerId | None
    joined: bool
    """Whether what is posted comes here."""
    built_in: bool
    members: tuple[PeerId, ...]
    """Who can read it; of an open channel every peer of the mesh."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A message that is in the outbox: it goes out by itself, whatever happens to this process."""

    id: MessageId
    peers: tuple[PeerId, ...]
    """Empty for a post: its recipients are whoever reads the channel."""
    stage: Stage
    channel: ChannelId | None = None
    reached: tuple[Reached, ...] = ()
    """Of a message to a tag: which sessions it goes to."""


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
    channel: str = ""
    """The channel that it was posted in, as it is written; empty for a direct message."""
    channel_id: ChannelId | None = None
    gap: int = 0
    """Messages of the same sender and place that were missing when this one came."""
    is_stale: bool = False
    """Its sender did not know yet of a change of membership: who left may have read it too."""
    may_repeat: bool = False
    """It was written before this device lost its record of what it had received: it may have been shown before."""
    shared_by: str = ""
    """Who gave it to us from its history; empty when it came by itself."""
    chain: Chain | None = None
    """Where its sender says that it stands in a conversation of agents; None where a person wrote it."""

    @property
    def cause(self) -> Cause:
        """It, as the reason of another message."""
        return Cause(self.id, self.chain)


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
    """How far a message came at one recipient, or, of a post, at the broker."""

    peer: PeerId | ChannelId
    """For the row that stands for a whole channel, the channel."""
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
    """Of a post, the channel itself comes first, then each member that stated something."""
    channel: ChannelId | None = None


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session of a peer: named by its peer, connected as the broker says."""

    id: SessionId
    label: str
    status: str
    online: bool
    reach: str = ""
    """How a message reaches it: `wakeable`, `tool`, `turn` or `asked`; empty: its peer has not said."""
    about: str = ""
    """What it works at, in the words of its agent."""
    tags: tuple[str, ...] = ()


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
    as_of: UnixMillis
    """When the broker was last asked who is connected; 0: it could not be."""


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
    foreign_card: int = 0
    """Number of a card of this peer that the broker had and that this device never issued; 0: there was none."""
    held: int = 0
    """Messages that wait for a person (docs/spec/holding.md)."""
    paused_since: UnixMillis = _NEVER
    """Since when no agent gets or sends anything here; 0: it is not paused."""
    dnd_since: UnixMillis = _NEVER
    """Since when agents get only what may interrupt; 0: they get everything."""


class _Header(msgspec.Struct):
    """Of a header that was checked when it arrived, what is shown."""

    sess: SessionId
    prio: Priority
    ts: UnixMillis
    intent: Intent | None = None
    exp: UnixMillis | None = None
    root: MessageId | None = None
    hop: int | None = None


_header_decoder = msgspec.json.Decoder(_Header)


def read_header(frame: bytes) -> tuple[_Header, bytes]:
    """Of a frame that was verified before it was stored: what is shown of its header, and the body."""
    header_end = 5 + int.from_bytes(frame[1:5], "big")
    return _header_decoder.decode(frame[5:header_end]), frame[header_end + 4 :]


def read_row(
    row: InboxRow,
    address_of: Callable[[PeerId], str],
    channel_of: Callable[[ChannelId], str],
    remembered_since: UnixMillis,
) -> Received:
    """Show an inbox row; it was verified before it was stored.

    Args:
        remembered_since: Since when the replay windows are complete; 0 when they always were.
    """
    header, body = read_header(row.frame)
    return Received(
        number=row.id,
        id=row.message_id,
        text=body.decode(),
        sender=address_of(row.sender),
        sender_id=row.sender,
        sender_session=header.sess,
        session=row.session,
        priority=header.prio,
        intent=header.intent,
        reply_to=row.reply_to,
        sent_at=header.ts,
        accepted_at=row.accepted_at,
        received_at=row.received_at,
        expires_at=header.exp,
        seen_at=row.seen_at,
        channel="" if row.channel is None else channel_of(row.channel),
        channel_id=row.channel,
        gap=row.gap,
        is_stale=bool(row.is_stale),
        may_repeat=row.received_at >= remembered_since >= header.ts - CLOCK_SKEW_MS and row.teller is None,
        shared_by="" if row.teller is None else address_of(row.teller),
        chain=chains.read({"id": row.message_id, "root": header.root, "hop": header.hop}),
    )


def read_post(
    row: PostRow, own: PeerId, address_of: Callable[[PeerId], str], channel_of: Callable[[ChannelId], str]
) -> Received:
    """Show a post of our own as the others see it; it is no row of the inbox, so its number is 0."""
    accepted_at = row.accepted_at or row.created_at
    return Received(
        number=0,
        id=row.message_id,
        text=row.body.decode(),
        sender=address_of(own),
        sender_id=own,
        sender_session=SessionId(row.session or ""),
        session=None,
        priority=row.priority,
        intent=row.intent,
        reply_to=row.reply_to,
        sent_at=row.created_at,
        accepted_at=accepted_at,
        received_at=accepted_at,
        expires_at=row.expires_at,
        seen_at=accepted_at,
        channel=channel_of(row.channel),
        channel_id=row.channel,
    )
