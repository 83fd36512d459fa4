"""Sessions that are handed to a container or CI job."""

from typing import Annotated

import msgspec

from claudemesh.daemon.schema.base import Answer, InMesh, Millis, Name

Capabilities = Annotated[list[Name], msgspec.Meta(min_length=1, max_length=6)]


class SessionCreateArgs(InMesh, frozen=True, kw_only=True):
    """Make a session that can do only what its capabilities allow."""

    capabilities: Capabilities
    """Some of `dm` and `chan`."""
    label: Name = "job"
    """What the session is called."""
    expires_in_ms: Millis = 86_400_000
    """How long it may speak; at most 7 days."""


class HandedOut(Answer, frozen=True, kw_only=True):
    """A session of this peer that somebody else runs."""

    session: str
    """Its key."""
    label: str
    """What it is called."""
    capabilities: list[str]
    """What it may do."""
    issued_at: int
    """When it was made."""
    expires_at: int
    """Until when it may speak."""
    ended_at: int
    """When it was ended early; 0 when it was not."""


class SessionCreated(Answer, frozen=True, kw_only=True):
    """`bundle` is a secret, kept nowhere: whoever has it can do what the capabilities say."""

    mesh: str
    """Alias of the mesh."""
    session: HandedOut
    """The session."""
    bundle: str
    """Content of the file for `claudemesh --session FILE`; holds no key of the peer."""


class SessionList(Answer, frozen=True, kw_only=True):
    """Sessions that were handed out."""

    mesh: str
    """Alias of the mesh."""
    sessions: list[HandedOut]
    """The oldest first."""


class SessionEndArgs(InMesh, frozen=True, kw_only=True):
    """End a session before its time."""

    session: Name
    """Its label, or the first 8 digits of its key."""


class SessionEnded(Answer, frozen=True, kw_only=True):
    """The peer's new card says so; everybody who sees it refuses the session."""

    mesh: str
    """Alias of the mesh."""
    session: HandedOut
    """The session."""
