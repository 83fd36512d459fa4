"""Channels and groups: who reads them, and what is kept of them."""

from typing import Annotated, Literal

import msgspec

from claudemesh.daemon.schema.base import Answer, InMesh, Name
from claudemesh.daemon.schema.members import Trust

ChannelKind = Literal["open", "private", "group"]


class Channel(Answer, frozen=True, kw_only=True):
    """A channel or group of the roster."""

    id: str
    """32 hex digits: the channel itself; its name is what somebody calls it."""
    name: str
    """With its sign, `#` or `@`; the beginning of the id while nobody has told this machine a name."""
    kind: ChannelKind
    """`open` to every member of the mesh, `private`, or `group`."""
    topic: str
    """What its creator says that it is about."""
    creator: str
    """Address of whoever made it; empty for `#general`."""
    joined: bool
    """Whether what is posted comes to this machine."""
    members: int
    """How many peers can read it; of an open channel every peer of the mesh."""


class ChannelArgs(InMesh, frozen=True, kw_only=True):
    """One channel or group."""

    channel: Name
    """`#deploys` or `@reviewers`; or the sign and more than 8 digits of its id."""


class ChannelCreateArgs(InMesh, frozen=True, kw_only=True):
    """Make a channel or group, with this peer in it. The broker learns its id and its kind, never its name."""

    name: Name
    """1 to 40 of `a-z`, `0-9`, `-` and `_`; a group's may begin with `@`."""
    kind: ChannelKind = "open"
    """`open` to every member of the mesh; `private`, to which members add others; `group`, which anybody may join."""
    topic: Name = ""
    """Up to 200 characters."""


class ChannelListArgs(InMesh, frozen=True, kw_only=True):
    """List channels or groups."""

    groups: bool = False
    """The groups instead of the channels."""


class ChannelJoinArgs(ChannelArgs, frozen=True, kw_only=True):
    """Read an open channel from now on, or enter a group. A private channel is entered by being added."""


class ChannelLeaveArgs(ChannelArgs, frozen=True, kw_only=True):
    """Read an open channel no longer, or leave a group or private channel."""


class ChannelMembersArgs(ChannelArgs, frozen=True, kw_only=True):
    """List who can read a channel or group."""


class ChannelMemberArgs(ChannelArgs, frozen=True, kw_only=True):
    """A channel or group, and a member of the mesh."""

    member: Name
    """Address of a peer, or of a user and so of all of its peers."""


class ChannelAddArgs(ChannelMemberArgs, frozen=True, kw_only=True):
    """Add somebody to a group or private channel. What was said before stays closed to them until it is shared."""


class ChannelRemoveArgs(ChannelMemberArgs, frozen=True, kw_only=True):
    """Take somebody out of a group or private channel, and replace its secret."""


class ChannelShareArgs(ChannelMemberArgs, frozen=True, kw_only=True):
    """Give a member what is kept here of a channel's past. Nothing of this ever happens by itself."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 1_000
    """At most so many posts, the last ones; 1 to 1000."""


class ChannelHistoryArgs(ChannelArgs, frozen=True, kw_only=True):
    """The last posts that are kept here, received and own ones, oldest first."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100
    """At most so many; 1 to 1000."""


class ChannelAnswer(Answer, frozen=True, kw_only=True):
    """The channel as it is now."""

    mesh: str
    """Alias of the mesh."""
    channel: Channel
    """The channel."""


class ChannelCreated(ChannelAnswer, frozen=True, kw_only=True):
    """The roster has the channel. Its name goes to the other members end to end."""


class ChannelJoined(ChannelAnswer, frozen=True, kw_only=True):
    """What is posted from now on comes to this machine."""

    changed: bool
    """Whether it did not before."""


class ChannelLeft(ChannelAnswer, frozen=True, kw_only=True):
    """What is posted from now on does not come to this machine."""

    changed: bool
    """Whether it did before."""


class ChannelList(Answer, frozen=True, kw_only=True):
    """Channels or groups; a private one of others stands there by the beginning of its id."""

    mesh: str
    """Alias of the mesh."""
    channels: list[Channel]
    """In the order of the roster."""


class ChannelMember(Answer, frozen=True, kw_only=True):
    """A peer that can read a channel."""

    address: str
    """Address in the mesh."""
    key: str
    """Ed25519 public key, 64 hex digits."""
    trust: Trust
    """`this device`, `own device`, `pinned` (its key is the one first seen under this name) or `unknown`."""
    online: bool
    """Whether a session of it is connected now."""
    last_seen_at: int
    """When the broker last heard from it; 0 when never or unknown."""


class ChannelMembers(ChannelAnswer, frozen=True, kw_only=True):
    """Who can read the channel. `presence` is false when the broker could not be asked who is online."""

    presence: bool
    """Whether the broker could be asked who is online."""
    members: list[ChannelMember]
    """By address. Of an open channel every peer of the mesh, since each may read it at any time."""


class ChannelMembersAdded(ChannelAnswer, frozen=True, kw_only=True):
    """They read what is posted from now on."""

    added: list[str]
    """Addresses of those who were not in it before."""


class ChannelMembersRemoved(ChannelAnswer, frozen=True, kw_only=True):
    """They can read nothing that is posted from now on."""

    removed: list[str]
    """Addresses of those who were in it."""
    rotated: bool
    """Whether the secret was replaced already; if not, whoever posts next does it first."""


class ChannelHistoryEnd(ChannelAnswer, frozen=True, kw_only=True):
    """After the posts, each an event."""

    count: int
    """How many posts were reported."""


class SharedWith(Answer, frozen=True, kw_only=True):
    """What one peer gets of a channel's history."""

    address: str
    """Address in the mesh."""
    messages: int
    """How many posts of others it gets."""
    epochs: int
    """How many older secrets of the channel it gets."""


class ChannelShared(ChannelAnswer, frozen=True, kw_only=True):
    """The posts are on their way, each with its author's signature."""

    to: list[SharedWith]
    """Who gets them: of a person, every device that is in the channel."""
