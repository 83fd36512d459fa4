"""Whom a tag reaches: sessions that carry it, by the profiles that their peers signed (docs/sdk.md §3).

The sender decides, so a broker can add nobody. Its word for who is connected only says which of them is tried first.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from claudemesh.errors import AddressError
from claudemesh.peer.addressing import KnownPeer
from claudemesh.types import MessageId, PeerId, SessionId

PREFIX: Final = "tag:"
_PREFERENCE: Final = ("idle", "busy", "away", "")

Reach = Literal["any", "all"]


@dataclass(frozen=True, slots=True)
class Tagged:
    """A session that carries a tag."""

    peer: PeerId
    session: SessionId
    label: str
    status: str
    """`idle`, `busy` or `away` while it is connected; empty when it is not."""


def find_tagged(
    address: str, peers: Iterable[KnownPeer], statuses: Mapping[SessionId, str], asking: SessionId | None
) -> list[Tagged]:
    """Every session that carries the tag of an address such as `tag:repo=billing`, the readiest first.

    Args:
        peers: The active peers of the roster, with what they say of their sessions.
        statuses: Status of each connected session.
        asking: The session that sends; it does not reach itself.

    Raises:
        AddressError: `unknown_address`; nobody carries it. `detail` names tags that somebody carries.
    """
    wanted = address.strip().removeprefix(PREFIX)
    known = [(peer, session) for peer in peers for session in peer.sessions if session.id != asking]
    found = [
        Tagged(peer.id, session.id, session.label, statuses.get(session.id, ""))
        for peer, session in known
        if wanted in session.tags
    ]
    if not found:
        carried = sorted({tag for _, session in known for tag in session.tags})[:5]
        hint = f"; there are {', '.join(carried)}" if carried else ""
        raise AddressError("unknown_address", f"no session carries {wanted}{hint}")
    return sorted(found, key=lambda one: (_PREFERENCE.index(one.status), one.session))


def choose_one(found: list[Tagged], spread: float) -> Tagged:
    """One of the readiest sessions, so that several that are equally ready share the work.

    Args:
        found: As `find_tagged` returns it.
        spread: 0 to 1, random.
    """
    readiest = [one for one in found if one.status == found[0].status]
    return readiest[min(int(spread * len(readiest)), len(readiest) - 1)]


def id_for(message_id: MessageId, found: list[Tagged], index: int) -> MessageId:
    """The id of one copy: the message's own, or a derived one for a further session of a peer that has a copy already.

    A peer drops a second message with an id that it has.
    """
    if all(earlier.peer != found[index].peer for earlier in found[:index]):
        return message_id
    return MessageId(hashlib.sha256(f"{message_id}{found[index].session}".encode()).hexdigest()[:32])
