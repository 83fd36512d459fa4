"""Decisions about the roster: removals, roles, new keys, recovery, and a mesh that is frozen."""

from typing import Annotated, Literal

import msgspec

from claudemesh.daemon.schema.base import Answer, Args, InMesh, Millis, Name, Path
from claudemesh.daemon.schema.meshes import MeshSummary

Reason = Literal["left", "lost", "stolen", "removed"]
Relation = Literal["known", "ahead", "conflict"]


class Who(Answer, frozen=True, kw_only=True):
    """One peer, by name and key."""

    address: str
    """Address in the mesh."""
    key: str
    """Ed25519 public key, 64 hex digits."""


class RevokeArgs(InMesh, frozen=True, kw_only=True):
    """Remove a peer, or a user with every device; a name of our own user stands for our other devices."""

    peer: Name
    """Address of a peer or user, or the beginning of its key."""
    reason: Reason = "removed"
    """What the roster says: `left`, `lost`, `stolen` or `removed`."""
    close_invites: bool = False
    """Also close the open invites that admitted them."""


class Revoked(Answer, frozen=True, kw_only=True):
    """They are out for every peer that sees the roster."""

    mesh: str
    """Alias of the mesh."""
    peers: list[Who]
    """Who was removed."""
    invites: list[str]
    """Invites that were open before and are closed now."""
    rotated: bool
    """Whether the channels have new secrets already; else whoever writes next makes them."""


class RoleArgs(InMesh, frozen=True, kw_only=True):
    """Give a peer, or every device of a user, a role."""

    peer: Name
    """Address of a peer or user, or the beginning of its key."""
    role: Literal["member", "admin", "owner"]
    """`member`, `admin` or `owner`."""


class RoleGiven(Answer, frozen=True, kw_only=True):
    """The roster says so."""

    mesh: str
    """Alias of the mesh."""
    role: str
    """`member`, `admin` or `owner`."""
    changed: list[Who]
    """Those that had another role before."""


class Rekeyed(Answer, frozen=True, kw_only=True):
    """Everybody encrypts to the new box key; the roster sets a floor that no broker can undo."""

    mesh: str
    """Alias of the mesh."""
    card: int
    """Number of the lowest card that is still valid."""
    rotated: bool
    """Whether the channels have new secrets already; else whoever writes next makes them."""


class RecoverArgs(Args, frozen=True, kw_only=True):
    """Become the owner by the recovery words."""

    words: Annotated[str, msgspec.Meta(max_length=1_024)]
    """As they were printed."""
    mesh: Name = ""
    """Alias of a mesh of this machine; empty when there is one, or for one that this machine has no trace of."""
    broker_url: Path = ""
    """URL of its broker, where this machine does not know it."""
    mesh_id: Name = ""
    """Its id in 32 digits or more, where this machine does not know it."""
    name: Name = ""
    """What the user is called; empty for the name in use."""
    device: Name = ""
    """What this machine is called; empty for the name in use."""


class Recovered(Answer, frozen=True, kw_only=True):
    """This machine is the only owner."""

    mesh: MeshSummary
    """The mesh."""
    removed: list[Who]
    """Owners and admins that are out."""
    invites: list[str]
    """Invites that were open and are closed."""
    rotated: bool
    """Whether the channels have new secrets already; else whoever writes next makes them."""


class MeshLogArgs(InMesh, frozen=True, kw_only=True):
    """The roster in words."""

    from_seq: Millis = 0
    """The first entry to tell."""


class LogEntry(Answer, frozen=True, kw_only=True):
    """One entry of the roster. `text` holds names that peers chose for themselves."""

    seq: int
    """Its number."""
    at: int
    """By its author's clock."""
    op: str
    """The operation of docs/spec/roster.md §2."""
    text: str
    """What happened, in words."""
    by: str
    """Key of the author: a peer, an invite or the recovery key."""
    by_address: str
    """The author's address; empty when it is no peer."""
    who: str
    """Key of the peer or user that it is about; empty for none."""
    who_address: str
    """That peer's address; empty for none."""
    invite: str
    """Key of the invite that it is about or that admitted somebody; empty for none."""
    signers: list[str]
    """Keys whose signatures were verified."""
    head: str
    """The head of the roster after it."""


class MeshLog(Answer, frozen=True, kw_only=True):
    """Who admitted whom, by which invite, and who removed whom."""

    mesh: str
    """Alias of the mesh."""
    entries: list[LogEntry]
    """The oldest first."""


class HeadClaim(Answer, frozen=True, kw_only=True):
    """The head that a peer named in its newest message."""

    peer: Who
    """Who named it."""
    seq: int
    """Number of the entry."""
    head: str
    """Its hash."""
    signed_at: int
    """When the broker signed it."""
    relation: Relation
    """`known` (on our history), `ahead` of it, or in `conflict` with it."""
    proven: bool
    """Whether the broker's signature is on it."""


class Branch(Answer, frozen=True, kw_only=True):
    """One of the histories that the broker signed."""

    seq: int
    """Number of its newest known entry."""
    head: str
    """That entry's hash: what `mesh.trust` wants."""
    head_number: str
    """The head as digits to compare by voice."""
    own: bool
    """Whether it is the one that this machine holds."""
    broker: str
    """Key of the broker that signed it."""
    signed_at: int
    """When it did."""
    authors: list[str]
    """Addresses of those who signed our newest entries; empty for a branch that is not ours."""
    followers: list[str]
    """Addresses of peers that named it."""
    suggested: bool
    """Whether an owner is on it."""


class FreezeDecision(Answer, frozen=True, kw_only=True):
    """How a person resolved a freeze. The proof is kept."""

    code: str
    """Why it was frozen."""
    frozen_at: int
    """Since when."""
    trusted: str
    """The head that was trusted."""
    decided_at: int
    """When that was decided."""
    statements: list[dict[str, str]]
    """The proof: statements that the broker signed, each with `b`, `k` and `s`."""


class MeshHeads(Answer, frozen=True, kw_only=True):
    """What is known of the head of one mesh."""

    mesh: str
    """Alias of the mesh."""
    seq: int
    """Number of our newest entry."""
    head: str
    """Its hash."""
    head_number: str
    """The head as digits to compare by voice."""
    broker_seq: int
    """Where the newest head that the broker signed for us ends; -1 for none."""
    broker_head: str
    """Its hash; empty for none."""
    broker_at: int
    """When the broker signed it."""
    broker_key: str
    """The broker's key."""
    claims: list[HeadClaim]
    """Heads that peers named."""
    frozen: str
    """Why the mesh is frozen; empty when it is not."""
    frozen_at: int
    """Since when."""
    branches: list[Branch]
    """While it is frozen: ours, then the others."""
    decisions: list[FreezeDecision]
    """Freezes that were resolved before."""


class TrustArgs(InMesh, frozen=True, kw_only=True):
    """Resolve a freeze."""

    head: Name
    """The beginning of the hash of one of the heads, 8 digits or more."""


class Trusted(Answer, frozen=True, kw_only=True):
    """The decision is recorded, the proof kept, and sending goes on."""

    mesh: str
    """Alias of the mesh."""
    seq: int
    """Number of the entry that was trusted."""
    head: str
    """Its hash."""
    own: bool
    """Whether it is the history that this machine held; otherwise the roster is fetched anew and must contain it."""
    frozen: str
    """Why the mesh is frozen again, if it is; empty otherwise."""
