"""Channels on the wire, as tests make them."""

from typing import Any

import msgspec
import pytest

from claudemesh.crypto.epochs import NewEpoch
from claudemesh.errors import Refused
from claudemesh.protocol import codec, messages
from claudemesh.types import ChannelId
from tests import wire_client as wire

DEPLOYS = ChannelId("de" * 16)
REVIEWS = ChannelId("7e" * 16)


async def append(url: str, by: wire.Identity, op: str, *others: wire.Identity, **fields: Any) -> None:
    """Append one entry; every replica that is given knows it."""
    async with wire.member(url, by) as link:
        entry = by.entry(op, **fields)
        await link.append(entry)
    for one in (by, *others):
        one.follow([entry])


async def private_channel(url: str, creator: wire.Identity, *others: wire.Identity, kind: str = "private") -> None:
    """Make DEPLOYS for these members, who then know it."""
    async with wire.member(url, creator) as link:
        entries = [creator.entry("chan", chan=DEPLOYS, kind=kind)]
        creator.follow(entries)
        await link.append(entries[0])
        for other in others:
            entries.append(creator.entry("chan_add", chan=DEPLOYS, who=other.id))
            creator.follow(entries[-1:])
            await link.append(entries[-1])
    for other in others:
        async with wire.member(url, other):
            pass


async def refusal_of(sender: wire.Wire, post: messages.Post) -> Refused:
    with pytest.raises(Refused) as refused:
        await sender.submit(post)
    return refused.value


async def refusal_of_epoch(sender: wire.Wire, made: NewEpoch, by: wire.Identity, **changes: Any) -> tuple[str, str]:
    with pytest.raises(Refused) as refused:
        await sender.publish(made, by, **changes)
    return refused.value.code, refused.value.detail.split(" ")[0]


async def audit_rows(link: wire.Wire) -> list[dict[str, Any]]:
    audit = await link.request(messages.Audit, messages.GetAudit, n=0)
    return [msgspec.json.decode(row) for row in audit.rows]


def post_of(delivery: messages.Delivery) -> messages.Post:
    envelope = codec.decode_envelope(bytes(delivery.e))
    assert isinstance(envelope, messages.Post)
    return envelope


async def log_of(url: str, one: wire.Identity) -> messages.Log:
    async with wire.member(url, one) as link:
        return await link.request(messages.Log, messages.Sync, seq=one.roster.seq + 1)
