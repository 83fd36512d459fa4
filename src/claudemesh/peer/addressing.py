"""Addresses: a name becomes keys, by the verified roster and the pinned names, or an error that helps (docs/sdk.md §3).

    alice                     a user: every peer of it
    alice.laptop              one peer
    alice.laptop/payments     one session of it
    payments, laptop          any short form that only one thing answers to
    3f9a02c7                  8 or more digits of a key of a peer, session or user

It never guesses: two candidates are an error, and a name that two users bear addresses neither.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from claudemesh.errors import AddressError
from claudemesh.types import PeerId, SessionId, UserId

_PREFIX = re.compile(r"[0-9a-f]{8,64}\Z")
_SUGGESTIONS: Final = 5


@dataclass(frozen=True, slots=True)
class KnownSession:
    """A session that its peer named."""

    id: SessionId
    label: str
    tags: tuple[str, ...] = ()
    reach: str = ""
    """How a message reaches it (`contents.REACHES`); empty: its peer has not said."""
    about: str = ""


@dataclass(frozen=True, slots=True)
class KnownPeer:
    """An active peer of the roster, with the names that it goes by. Empty: it has not said."""

    id: PeerId
    user: UserId
    name: str = ""
    device: str = ""
    sessions: tuple[KnownSession, ...] = ()
    online: bool = False

    @property
    def address(self) -> str:
        """The shortest form that a person would write; the beginning of the key while there is no name."""
        if self.name and self.device:
            return f"{self.name}.{self.device}"
        return self.name or self.id[:16]


@dataclass(frozen=True, slots=True)
class Target:
    """What an address stands for: one or more peers, or one session of one peer."""

    peers: tuple[PeerId, ...]
    session: SessionId | None = None
    user: UserId | None = field(default=None, compare=False)
    """Where the address is a user's: a decision about it is about later devices, too."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    label: str
    online: bool
    target: Target


def resolve(address: str, peers: Sequence[KnownPeer], bearers: dict[str, frozenset[UserId]], own: PeerId) -> Target:
    """Find what an address stands for.

    Args:
        peers: The active peers of the roster, this one among them.
        bearers: For each pinned name, every user that ever used it.
        own: This peer; an address of its user means the user's other peers, if there are any.

    Raises:
        AddressError: `unknown_address`, with the nearest names; `ambiguous_address`, with the candidates.
    """
    wanted = address.strip()
    if not wanted:
        raise AddressError("unknown_address", "the address is empty")
    if wanted[0] in "#@" or wanted.startswith("tag:"):
        raise AddressError("unknown_address", f"{wanted} is neither a peer nor a session")
    found = _by_name(wanted, peers, bearers, own) or _by_key(wanted, peers, own)
    if not found:
        raise AddressError("unknown_address", _nearest(wanted, peers))
    if len(found) > 1:
        listed = ", ".join(f"{one.label} ({'online' if one.online else 'offline'})" for one in found[:_SUGGESTIONS])
        raise AddressError("ambiguous_address", f"{wanted} may be {listed}")
    return found[0].target


def shortest_addresses(peers: Sequence[KnownPeer], bearers: dict[str, frozenset[UserId]]) -> dict[PeerId, str]:
    """For each peer an address that means exactly it: by name where that is unambiguous, else by key."""
    uses = Counter(peer.address for peer in peers)
    return {
        peer.id: peer.address
        if peer.name and uses[peer.address] == 1 and len(bearers.get(peer.name, frozenset())) <= 1
        else peer.id[:16]
        for peer in peers
    }


def _by_name(
    wanted: str, peers: Sequence[KnownPeer], bearers: dict[str, frozenset[UserId]], own: PeerId
) -> list[_Candidate]:
    """Every reading of a name, the specific forms before the short ones; the first form that matches decides."""
    head, slash, label = wanted.partition("/")
    users = _users(head.partition(".")[0], peers, bearers, own)
    if len(users) > 1:
        return users  # whoever bears a contested name, none of its longer forms is trusted either
    if slash:
        return _sessions(label, _peers_named(head, peers) if head else list(peers))
    if "." in wanted:
        return [_peer_candidate(peer) for peer in _peers_named(wanted, peers)]
    devices = [_peer_candidate(peer) for peer in peers if peer.device == wanted]
    return users or devices + _sessions(wanted, peers)


def _users(
    name: str, peers: Sequence[KnownPeer], bearers: dict[str, frozenset[UserId]], own: PeerId
) -> list[_Candidate]:
    """The users of a name. All that ever bore it count, so that a newcomer cannot take a name over in silence."""
    present = {peer.user for peer in peers if peer.name == name}
    if not present:
        return []
    found = [_user_candidate(name, user, peers, own) for user in sorted(present)]
    for gone in sorted(bearers.get(name, frozenset()) - present):
        found.append(_Candidate(f"{name} who was {gone[:8]} before", False, Target(())))
    return found


def _peers_named(head: str, peers: Sequence[KnownPeer]) -> list[KnownPeer]:
    name, dot, device = head.partition(".")
    if dot:
        return [peer for peer in peers if peer.name == name and peer.device == device]
    named = [peer for peer in peers if peer.name == name]
    if named:
        return named
    if _PREFIX.match(head):
        return [peer for peer in peers if peer.id.startswith(head)]
    return [peer for peer in peers if peer.device == head]


def _sessions(label: str, peers: Iterable[KnownPeer]) -> list[_Candidate]:
    found = []
    for peer in peers:
        for session in peer.sessions:
            if session.label == label or (_PREFIX.match(label) and session.id.startswith(label)):
                title = f"{peer.address}/{session.label}"
                found.append(_Candidate(f"{title} [{session.id[:8]}]", peer.online, Target((peer.id,), session.id)))
    return found


def _by_key(wanted: str, peers: Sequence[KnownPeer], own: PeerId) -> list[_Candidate]:
    prefix = wanted.lower()
    if not _PREFIX.match(prefix):
        return []
    found = [_peer_candidate(peer) for peer in peers if peer.id.startswith(prefix)]
    found += _sessions(prefix, peers)
    users = sorted({peer.user for peer in peers if peer.user.startswith(prefix)})
    return found + [_user_candidate(user[:8], user, peers, own) for user in users]


def _peer_candidate(peer: KnownPeer) -> _Candidate:
    return _Candidate(f"{peer.address} [{peer.id[:8]}]", peer.online, Target((peer.id,)))


def _user_candidate(title: str, user: UserId, peers: Sequence[KnownPeer], own: PeerId) -> _Candidate:
    theirs = [peer for peer in peers if peer.user == user]
    others = tuple(peer.id for peer in theirs if peer.id != own) or (own,)
    return _Candidate(f"{title} [{user[:8]}]", any(peer.online for peer in theirs), Target(others, user=user))


def _nearest(wanted: str, peers: Sequence[KnownPeer]) -> str:
    names: set[str] = set()
    for peer in peers:
        names.update(filter(None, (peer.name, peer.device, peer.address)))
        names.update(session.label for session in peer.sessions)
    nearest = difflib.get_close_matches(wanted, sorted(names), n=_SUGGESTIONS, cutoff=0.5)
    return f"{wanted}; did you mean {', '.join(nearest)}?" if nearest else wanted
