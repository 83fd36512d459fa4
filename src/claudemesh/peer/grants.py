"""Who may do what here: grants and blocks, decided by one pure function (docs/spec/grants.md).

A policy of this machine. Nobody else learns of it but a sender whose message it refuses.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, get_args

from claudemesh.types import PeerId, Priority, UserId

Permission = Literal["dm", "ask", "channel", "now", "transcript"]
Decided = Literal["dm", "ask", "channel", "now", "transcript", "block"]

PERMISSIONS: Final[tuple[Permission, ...]] = get_args(Permission)
DEFAULT: Final[frozenset[Permission]] = frozenset({"dm", "ask", "channel"})
"""What every peer of the mesh may do until somebody decides otherwise. Own devices may do everything."""
BLOCK: Final = "block"
TRANSCRIPT_TYPES: Final = "cm/transcript"
LOWERED: Final = "as_next"
"""Note of a `delivered` receipt: the message asked to interrupt, and was taken like any other."""


class Rule(NamedTuple):
    """One decision of a person."""

    subject: str
    """Key of a peer, or of a user and all of its peers."""
    session: str
    """Label of the session of ours that it is about; empty for all of them."""
    permission: Decided
    is_allowed: bool


class Sender(NamedTuple):
    """Who sent a message, by the verified roster."""

    peer: PeerId
    user: UserId
    is_own: bool
    """Whether it is a device of our own user."""


@dataclass(frozen=True, slots=True)
class Grants:
    """What one sender may do at one session of ours."""

    permissions: frozenset[Permission]
    is_blocked: bool = False


@dataclass(frozen=True, slots=True)
class Allow:
    """Take the message, with this priority."""

    priority: Priority


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not show it; the sender gets a signed `refused` receipt with this code (`errors.Refused`)."""

    code: Literal["blocked", "not_granted"]
    permission: Permission | None = None


def decide(grants: Grants, header: Mapping[str, Any]) -> Allow | Refuse:
    """Whether a message is taken.

    Args:
        header: Of an authentic message, in the form of docs/spec/envelope.md §1 or docs/spec/channels.md §4.

    Returns:
        `Allow`; its priority is `next` where the sender asks for `now` and may not interrupt. The protocol's own
        messages (`cm/…`) are always taken: names, receipts and repairs reach no agent.
    """
    needed = permission_for(header)
    if needed is None:
        return Allow(header["prio"])
    if grants.is_blocked:
        return Refuse("blocked")
    if needed not in grants.permissions:
        return Refuse("not_granted", needed)
    lowered = header["prio"] == "now" and "now" not in grants.permissions
    return Allow("next" if lowered else header["prio"])


def permission_for(header: Mapping[str, Any]) -> Permission | None:
    """What a message needs; None for the protocol's own."""
    content_type = header["ct"]
    if content_type.startswith(TRANSCRIPT_TYPES):
        return "transcript"
    if content_type.startswith("cm/"):
        return None
    if header["k"] == "ch":
        return "channel"
    return "ask" if header.get("intent") == "request" else "dm"


def grants_of(rules: Iterable[Rule], sender: Sender, session: str) -> Grants:
    """What the rules add up to for one sender and one session of ours.

    A rule for one session goes before one for all of them, then a rule for the peer before one for its user.

    Args:
        session: Label of the addressed session; empty when the peer as such is addressed.
    """
    fitting = sorted(
        (rule for rule in rules if rule.subject in (sender.peer, sender.user) and rule.session in ("", session)),
        key=lambda rule: (bool(rule.session), rule.subject == sender.peer),
    )
    permissions = set(PERMISSIONS if sender.is_own else DEFAULT)
    blocked = False
    for rule in fitting:
        if rule.permission == BLOCK:
            blocked = rule.is_allowed
        elif rule.is_allowed:
            permissions.add(rule.permission)
        else:
            permissions.discard(rule.permission)
    return Grants(frozenset(permissions), blocked)
