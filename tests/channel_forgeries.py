"""What members that obey no rule make of channels: epochs and posts by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from claudemesh.crypto.epochs import NewEpoch, make_epoch
from claudemesh.errors import ClaudemeshError
from claudemesh.protocol.epochs import HeldEpoch
from claudemesh.protocol.messages import Post
from claudemesh.protocol.roster import EVERYONE, Roster
from claudemesh.types import BoxId, ChannelId, UnixMillis
from tests.channel_members import Member, StoredEpoch

DEPLOYS = ChannelId("55" * 16)


def code_of(act: Callable[..., object], *arguments: Any, **named: Any) -> str:
    """The code with which a call is refused."""
    with pytest.raises(ClaudemeshError) as refusal:
        act(*arguments, **named)
    return refusal.value.code


def draft(member: Member, roster: Roster | None = None, **changes: Any) -> dict[str, Any]:
    """An epoch's record before its secret, on the member's head or, without a proof, on another."""
    known = roster or member.roster
    fields: dict[str, Any] = {"v": 1, "mesh": known.mesh, "chan": EVERYONE, "by": member.id, "at": member.clock.now}
    assert member.head is not None
    proof = {"ra": member.head.at, "rg": member.head.signature if roster is None else ""}
    return fields | {"rs": known.seq, "rh": known.head} | proof | changes


def make(author: Member, *holders: Member, entropy: bytes = bytes(range(64)), **changes: Any) -> NewEpoch:
    """An epoch as a member that obeys no rule would make it."""
    boxes = [BoxId(holder.boxes[0].public) for holder in holders]
    return make_epoch(draft(author, **changes), author.session, boxes, entropy)


def stored(author: Member, made: NewEpoch, *holders: Member) -> StoredEpoch:
    """An epoch as the broker would deliver it to its holders."""
    slots = dict(zip((holder.id for holder in holders), made.slots, strict=True))
    return StoredEpoch(made.statement, author.attestation, slots)


def held(made: NewEpoch, now: UnixMillis) -> HeldEpoch:
    return HeldEpoch(made.record, made.secret, now)


def make_private_channel(by: Member, *others: Member) -> None:
    """Make the channel DEPLOYS for these members, who then know it."""
    by.append("chan", chan=DEPLOYS, kind="private")
    for other in others:
        by.append("chan_add", chan=DEPLOYS, who=other.id)
    for member in (by, *others):
        member.sync()


def altered(post: Post, **changes: Any) -> Post:
    """A post whose outer fields were changed on the way."""
    fields = {name: getattr(post, name) for name in post.__struct_fields__}
    return Post(**(fields | changes))


def sorted_members(*members: Member) -> list[Member]:
    return sorted(members, key=lambda member: member.id)
