"""Sending, receiving, and the timeline of a message."""

from typing import Annotated, Literal

import msgspec

from claudemesh.daemon.schema.base import Answer, Args, InMesh, Millis, Name, Text
from claudemesh.types import Priority

Numbers = Annotated[list[Millis], msgspec.Meta(max_length=1_000)]
WaitStage = Literal["accepted", "delivered", "read", "replied"]


class SendArgs(InMesh, frozen=True, kw_only=True):
    """Send `text` to one addressee, a channel or a tag. `id` (32 hex digits) makes a repetition the same message."""

    to: Name
    """An address: a user, a peer, a session, the beginning of a key; `#channel`, `@group`, `tag:key=value`."""
    reach: Literal["any", "all"] = "any"
    """Of the sessions that carry a tag: `any` one, the readiest, or `all`."""
    text: Text
    """UTF-8, at most 512 KiB."""
    priority: Priority = "next"
    """`now`, `next` or `low`."""
    reply_to: Name = ""
    """Id of the message that it answers; empty for none."""
    expires_in_ms: Millis = 0
    """0 is the longest that a broker keeps a message."""
    session: Name = ""
    """Label of an open session of this daemon that is the sender."""
    id: Name = ""
    """Message id to use; empty for a new one."""
    intent: Literal["", "request", "inform", "ack"] = ""
    """What it is for; an `ack` wakes nobody. Empty says nothing."""
    by_person: bool = False
    """A person typed it: it begins a conversation, and is sent in a paused mesh too."""
    by_agent: bool = False
    """An agent wrote it, without a session: it counts as one's."""
    allow_secret: bool = False
    """Send it although it looks like it holds a credential."""
    wait: WaitStage | Literal[""] = ""
    """Answer when this stage is reached; empty for at once."""
    timeout_ms: Millis = 60_000
    """How long to wait for it."""


class Recipient(Answer, frozen=True, kw_only=True):
    """One addressee and how far its copy came. Of a post the first one is the channel, then who confirmed it."""

    address: str
    """Address in the mesh; of a message to a tag, that of the session."""
    key: str
    """Ed25519 public key, 64 hex digits; of a channel its id, 32 hex digits."""
    id: str
    """Id of its copy: the message's, or another one for a further session of one peer."""
    status: str
    """The session, or the readiest one of a peer, was `idle`, `busy` or `away`; empty when none was connected."""
    stage: str
    """How far its copy came."""
    code: str
    """Why it was refused, held or expired; empty otherwise."""
    online: bool | None
    """None when the broker was not asked, or could not be."""
    last_seen_at: int
    """When the broker last heard from it; 0 when never or unknown."""
    reach: str = ""
    """How a message reaches that session: `wakeable`, `tool`, `turn` or `asked`; empty: its peer has not said."""
    agents: int = 0
    """How many sessions of agents are connected there."""


class Sent(Answer, frozen=True, kw_only=True):
    """The message is durable here, and as far on its way as `stage` says."""

    id: str
    """The message's id, 32 hex digits."""
    mesh: str
    """Alias of the mesh."""
    stage: str
    """The least of its recipients' stages; of a post, the furthest that somebody stated."""
    priority: str
    """`now`, `next` or `low`."""
    channel: str
    """The channel or group that it was posted in; empty for any other message."""
    to: list[Recipient]
    """One per recipient; of a message to a tag, one per session that it reaches."""
    expires_at: int
    """Until when it is kept for a recipient that is offline."""
    link: str
    """`open`, or why the broker could not be reached."""
    replies: list["Message"]
    """With `wait` `replied`: the answer."""


class Sender(Answer, frozen=True, kw_only=True):
    """Who signed a message, as verified against the roster. Never taken from its text."""

    address: str
    """Address that resolves to the sending session."""
    key: str
    """The peer's key."""
    session: str
    """The session's label; empty when it has none."""
    trust: str
    """`this device`, `own device`, `pinned` (its key is the one first seen under this name) or `unknown`."""


class Message(Answer, frozen=True, kw_only=True):
    """One opened message. `text` is data from another agent."""

    number: int
    """Its row in the inbox of its mesh; grows with each arrival. 0 for a post of this peer's own."""
    id: str
    """32 hex digits."""
    mesh: str
    """Alias of the mesh."""
    sender: Sender
    """Who signed it."""
    to_session: str
    """Label of the session that it was addressed to; empty for the whole peer."""
    sent_at: int
    """When the sender sealed it, by the sender's clock."""
    received_at: int
    """When it became durable here."""
    priority: str
    """`now`, `next` or `low`."""
    reply_to: str
    """Id of the message that it answers; empty for none."""
    channel: str
    """The channel or group that it was posted in, with its sign; empty for a direct message."""
    missing: int
    """How many messages of this sender, in this place, had not arrived when this one came."""
    stale: bool
    """Whether its sender did not know yet of a change of membership: who left may have read it too."""
    may_repeat: bool
    """Whether it was written before this device lost its record of what came: it may have been shown before."""
    shared_by: str
    """Address of who gave it to us from the channel's past; empty when it came by itself."""
    text: str
    """The body: data from another agent."""
    unread: bool
    """Whether nobody was shown it before."""


class InboxArgs(Args, frozen=True, kw_only=True):
    """Received messages, in the order of arrival; of every mesh when `mesh` is empty."""

    mesh: Name = ""
    """Only this mesh; empty for every one."""
    unread: bool = True
    """Only those that nobody was shown."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    """At most so many of each mesh: the first of the unread ones, the last of all."""


class InboxEnd(Answer, frozen=True, kw_only=True):
    """After the messages, each an event."""

    count: int
    """How many messages were reported."""
    more: bool
    """Whether `limit` left any out."""


class Shown(InMesh, frozen=True, kw_only=True):
    """Messages of one mesh that were written out: they are not unread any more."""

    numbers: Numbers
    """Their numbers."""
    read: bool = False
    """Sign a read receipt for each: the text was put before a model."""
    session: Name = ""
    """Label of an open session that signs; empty for the peer as such."""


class WatchArgs(Args, frozen=True, kw_only=True):
    """Follow messages as they arrive, after those that are unread."""

    mesh: Name = ""
    """Only this mesh; empty for every one."""
    session: Name = ""
    """Open a session with this label, and follow what is for it; empty for everything."""
    tags: Annotated[list[Name], msgspec.Meta(max_length=16)] = msgspec.field(default_factory=list)
    """Of that session, as `key=value`: others reach it by `tag:key=value`."""


class Watching(Answer, frozen=True, kw_only=True):
    """The first event of `watch`: from now on nothing is missed."""

    mesh: str
    """Alias of the mesh."""
    address: str
    """Address of what is watched."""


class Gap(Answer, frozen=True, kw_only=True):
    """Messages that a sender numbered and that have not arrived."""

    mesh: str
    """Alias of the mesh."""
    address: str
    """Address of the sender."""
    channel: str
    """Where: the channel or group, with its sign; empty for direct messages."""
    missing: int
    """How many."""


class HeldNotice(Answer, frozen=True, kw_only=True):
    """A message of an agent waits for a person: `claudemesh hold list` (docs/spec/holding.md)."""

    mesh: str
    """Alias of the mesh."""
    address: str
    """Address of the sender."""
    id: str
    """The message's id, 32 hex digits."""
    reason: str
    """`hops`, `revisit`, `repeat`, `pair` or `session`."""


class MessageEvent(Answer, frozen=True, kw_only=True, omit_defaults=True):
    """One event of `inbox`, `watch` or `channel.history`: exactly one field is present."""

    message: Message | None = None
    """A message."""
    watching: Watching | None = None
    """Watching has begun."""
    gap: Gap | None = None
    """Messages are missing."""
    held: HeldNotice | None = None
    """A message waits for a person; it is shown to nobody before."""


class TimelineArgs(InMesh, frozen=True, kw_only=True):
    """`id` is a message id or its beginning, 8 digits or more."""

    id: Name
    """Id of a message or its first 8 digits."""


class Step(Answer, frozen=True, kw_only=True):
    """One stage of one recipient's copy. `signer` holds the key whose signature was verified; empty for our own."""

    stage: str
    """Stage of docs/spec/delivery.md."""
    at: int
    """When, by the clock of whoever states it."""
    to: str
    """Address of the recipient that it is about."""
    witness: Literal["sender", "broker", "peer"]
    """`sender` is this machine's journal."""
    signer: str
    """The key whose signature was verified; empty for our own, and where a broker said it unsigned."""
    signer_address: str
    """Whose key that is, of a session that is known its own address; empty when it is not a peer's."""
    code: str
    """Why it was refused, held or expired; of `offered` and `read` by which way, or on which evidence; else empty."""


class Timeline(Answer, frozen=True, kw_only=True):
    """Where a message is, and who says so."""

    id: str
    """32 hex digits."""
    mesh: str
    """Alias of the mesh."""
    direction: Literal["sent", "received"]
    """`sent` or `received`."""
    address: str
    """The addressee of a sent message, the sender of a received one."""
    channel: str
    """The channel or group that it was posted in, with its sign; empty for a direct message."""
    stage: str
    """Stage of docs/spec/delivery.md."""
    priority: str
    """`now`, `next` or `low`."""
    reply_to: str
    """Id of the message that it answers; empty for none."""
    sent_at: int
    """When the sender sealed it, by the sender's clock."""
    expires_at: int
    """Until when it is kept."""
    steps: list[Step]
    """In the order in which they were learnt."""
