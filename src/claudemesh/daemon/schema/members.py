"""Who belongs to a mesh: invites, joining, peers, identities."""

from typing import Annotated, Literal

import msgspec

from claudemesh.daemon.schema.administration import Who
from claudemesh.daemon.schema.base import Answer, Args, InMesh, Millis, Name
from claudemesh.daemon.schema.meshes import MeshSummary

Trust = Literal["this device", "own device", "pinned", "unknown"]


class InviteCreateArgs(InMesh, frozen=True, kw_only=True):
    """Issue an invite link."""

    uses: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 1
    """How many may join by it, 1 to 1000."""
    expires_in_ms: Millis = 7 * 86_400_000
    """How long it works; at most 90 days."""
    person: Name = ""
    """Make a personal link: whoever uses it joins as this person."""


class InviteCreated(Answer, frozen=True, kw_only=True):
    """`link` is a secret: whoever has it can join."""

    mesh: str
    """Alias of the mesh."""
    id: str
    """The invite's key."""
    link: str
    """The link, a secret."""
    person: str
    """Whom a personal link is for; empty for any other."""
    uses: int
    """How many may join by it."""
    expires_at: int
    """When it ends to work."""


class DeviceLinkArgs(InMesh, frozen=True, kw_only=True):
    """Issue a link by which further devices of this user join."""

    uses: Annotated[int, msgspec.Meta(ge=1, le=5)] = 1
    """How many devices may join by it, 1 to 5."""
    expires_in_ms: Millis = 3_600_000
    """How long it works; at most 90 days."""


class Invite(Answer, frozen=True, kw_only=True):
    """One invite of the roster; its link is known only to whoever made it."""

    id: str
    """The invite's key."""
    kind: Literal["open", "personal", "device"]
    """`open` for anybody, `personal` for one named user, `device` for the issuer's own devices."""
    role: str
    """Role of those who join by it."""
    uses: int
    """How many may join by it."""
    used: int
    """How many have joined by it."""
    expires_at: int
    """When it ends to work."""
    state: str
    """`open`, `expired`, `exhausted` or `revoked`."""
    issuer: str
    """Address of the peer that issued it."""


class InviteList(Answer, frozen=True, kw_only=True):
    """Every invite of the mesh."""

    mesh: str
    """Alias of the mesh."""
    invites: list[Invite]
    """In the order of the roster."""


class InviteRevokeArgs(InMesh, frozen=True, kw_only=True):
    """`invite` is an id or its beginning, 8 digits or more."""

    invite: Name
    """Its id or the first 8 digits."""
    with_members: bool = False
    """Also remove everybody who joined by it."""


class InviteRevoked(Answer, frozen=True, kw_only=True):
    """The link is dead for every verifier."""

    mesh: str
    """Alias of the mesh."""
    id: str
    """The invite's key."""
    removed: list[Who]
    """With `with_members`: who had joined by it and is out."""
    kept: list[Who]
    """Who had joined by it and is not below this peer in role: only an owner removes them."""
    rotated: bool
    """Whether the channels have new secrets already; else whoever writes next makes them."""


class JoinArgs(Args, frozen=True, kw_only=True):
    """Join by a link. `alias` defaults to the name in the link."""

    link: Annotated[str, msgspec.Meta(max_length=8_192)]
    """The link, also wrapped or quoted by a chat program."""
    name: Name = ""
    """What the user is called; empty for the login name."""
    device: Name = ""
    """What this machine is called; empty for its host name."""
    alias: Name = ""
    """What this machine is to call the mesh; empty for the name in the link."""


class Joined(Answer, frozen=True, kw_only=True):
    """This machine is a peer of the mesh."""

    mesh: MeshSummary
    """The mesh."""


class Session(Answer, frozen=True, kw_only=True):
    """A session that is connected now, as the broker says."""

    label: str
    """The session's label."""
    key: str
    """The session's key, 64 hex digits."""
    status: str
    """`idle`, `busy` or `away`."""
    reach: str = ""
    """How a message reaches its agent: `wakeable`, at the next `tool`, at the end of a `turn`, only when `asked`."""
    about: str = ""
    """What it works at, in the words of its agent."""
    tags: list[str] = msgspec.field(default_factory=list)
    """As `key=value`: `tag:key=value` reaches it."""


class Peer(Answer, frozen=True, kw_only=True):
    """One peer of the roster."""

    address: str
    """Address in the mesh."""
    key: str
    """Ed25519 public key, 64 hex digits."""
    user: str
    """The user's name."""
    device: str
    """The device's name."""
    role: str
    """`member`, `admin` or `owner`."""
    trust: Trust
    """`this device`, `own device`, `pinned` (its key is the one first seen under this name) or `unknown`."""
    online: bool
    """Whether a session of it is connected now."""
    last_seen_at: int
    """When the broker last heard from it; 0 when never or unknown."""
    sessions: list[Session]
    """Those that are connected now."""


class PeerList(Answer, frozen=True, kw_only=True):
    """Every active peer. `presence` is false when the broker could not be asked who is online."""

    mesh: str
    """Alias of the mesh."""
    presence: bool
    """Whether the broker could be asked who is online."""
    as_of: int
    """When it was asked; 0 when it was not."""
    peers: list[Peer]
    """This device first, then by address."""


class Identity(Answer, frozen=True, kw_only=True):
    """Who this machine is in one mesh."""

    mesh: str
    """Alias of the mesh."""
    mesh_id: str
    """64 hex digits."""
    address: str
    """Address in the mesh."""
    user: str
    """The user's name."""
    user_key: str
    """The user's key."""
    device: str
    """This machine's name."""
    peer: str
    """This peer's key."""
    role: str
    """`member`, `admin` or `owner`."""


class WhoAmIArgs(Args, frozen=True, kw_only=True):
    """Which mesh."""

    mesh: Name = ""
    """Only this mesh; empty for every one."""


class WhoAmI(Answer, frozen=True, kw_only=True):
    """Who this machine is, in every mesh or in the one named."""

    identities: list[Identity]
    """One per mesh."""


class VerifyArgs(InMesh, frozen=True, kw_only=True):
    """Whose key to compare, or that a person has compared it."""

    peer: Name
    """Address or the first 8 digits of a key."""
    matches: bool = False
    """The digits were the same: a name that others use too means this user from now on."""


class Verification(Answer, frozen=True, kw_only=True):
    """Thirty digits; the other side sees the same ones."""

    mesh: str
    """Alias of the mesh."""
    address: str
    """Address in the mesh."""
    key: str
    """Ed25519 public key, 64 hex digits."""
    safety_number: str
    """Six groups of five digits, the same on both sides."""
    name: str
    """With `matches`, the name that means this user; empty when it has none, or without `matches`."""
