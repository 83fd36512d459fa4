"""Grants and blocks: who may do what on this machine (docs/spec/grants.md)."""

from typing import Annotated, Literal

import msgspec

from claudemesh.daemon.schema.base import Answer, InMesh, Name

Permission = Literal["dm", "ask", "channel", "now", "transcript"]


class GrantArgs(InMesh, frozen=True, kw_only=True):
    """Let a peer or user do something here, or no more."""

    peer: Name
    """Address of a peer or user, or the beginning of its key."""
    permissions: Annotated[list[Permission], msgspec.Meta(min_length=1, max_length=5)]
    """Some of `dm`, `ask`, `channel`, `now`, `transcript`."""
    session: Name = ""
    """Label of the session of ours that it is about; empty for all of them."""
    revoke: bool = False
    """Take the permissions away instead."""


class GrantsArgs(InMesh, frozen=True, kw_only=True):
    """What others may do here."""

    peer: Name = ""
    """Only this peer or user; empty for everybody."""


class BlockArgs(InMesh, frozen=True, kw_only=True):
    """Take nothing more from a peer or user."""

    peer: Name
    """Address of a peer or user, or the beginning of its key."""
    session: Name = ""
    """Label of the session of ours that it is about; empty for all of them."""


class UnblockArgs(InMesh, frozen=True, kw_only=True):
    """Lift every block of a peer or user."""

    peer: Name
    """Address of a peer or user, or the beginning of its key."""


class Rule(Answer, frozen=True, kw_only=True):
    """One decision of a person."""

    scope: Literal["peer", "user"]
    """`user`: of every device of that user, later ones included."""
    key: str
    """Key of the peer or user."""
    session: str
    """Label of the session of ours that it is about; empty for all of them."""
    permission: str
    """A permission, or `block`."""
    allowed: bool
    """Whether it is granted; for `block`, whether it holds."""


class PeerGrants(Answer, frozen=True, kw_only=True):
    """What one peer may do here."""

    address: str
    """Address in the mesh."""
    key: str
    """Ed25519 public key, 64 hex digits."""
    permissions: list[str]
    """What it may do at the peer as such; single sessions may differ."""
    blocked: bool
    """Whether everything of it is refused."""
    rules: list[Rule]
    """The decisions that this follows from; empty where nobody decided anything."""


class GrantList(Answer, frozen=True, kw_only=True):
    """What others may do on this machine. Nobody else knows."""

    mesh: str
    """Alias of the mesh."""
    default: list[str]
    """What every peer of the mesh may do without a decision."""
    peers: list[PeerGrants]
    """By address; own devices may do everything by default."""
