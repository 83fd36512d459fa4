"""Posts that a broker must not take, and how many it takes (docs/spec/broker.md §4.3)."""

from pathlib import Path
from typing import Any

import pytest

from claudemesh.broker.app import Broker
from claudemesh.crypto import statements
from claudemesh.protocol import codec, limits, messages
from claudemesh.protocol.roster import EVERYONE, GENERAL
from tests import wire_client as wire
from tests.brokers import serving
from tests.channel_wire import DEPLOYS, private_channel, refusal_of, refusal_of_epoch


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"mesh": "aa" * 32}, "mesh or sender"),
        ({"sender": "bb" * 32}, "mesh or sender"),
        ({"att": "cc" * 32}, "attestation is not published"),
        ({"exp": 1}, "times"),
        ({"nbf": 2**52}, "times"),
    ],
)
async def test_post_that_lies_about_itself_is_refused(broker: Broker, changes: dict[str, Any], detail: str) -> None:
    owner, other = await wire.mesh_of(broker.url, 2)
    async with wire.member(broker.url, owner) as sending, wire.member(broker.url, other) as receiving:
        refused = await refusal_of(sending, owner.post(GENERAL, **changes))
        alone = await receiving.quiet(messages.Push)

    assert (refused.code, refused.detail) == ("invalid", detail)
    assert alone


async def test_session_without_the_capability_neither_posts_nor_rotates(broker: Broker) -> None:
    """A28: a session that may only write direct messages has no part in channels."""
    owner, _ = await wire.mesh_of(broker.url, 2)
    limited = owner.attestation(capabilities=("dm",))
    att = statements.statement_digest(limited, "att")
    async with wire.member(broker.url, owner) as link:
        await link.request(messages.Ok, messages.Attest, st=limited)
        refused = await refusal_of(link, owner.post(GENERAL, att=att))
        of_epoch = await refusal_of_epoch(link, owner.epoch(EVERYONE), owner, att=att)
        await link.submit(owner.envelope(owner.id, att=att))

    assert (refused.code, refused.detail) == ("invalid", "cap chan")
    assert of_epoch == ("invalid", "cap")


async def test_attestation_of_another_peer_serves_nobody(broker: Broker) -> None:
    """Neither for a post nor for an epoch, although the broker knows it."""
    owner, bob = await wire.mesh_of(broker.url, 2)
    att = statements.statement_digest(bob.attestation(), "att")
    async with wire.member(broker.url, bob), wire.member(broker.url, owner) as link:
        refused = await refusal_of(link, owner.post(GENERAL, att=att))
        of_epoch = await refusal_of_epoch(link, bob.epoch(EVERYONE), owner, att=att)

    assert (refused.code, refused.detail) == ("invalid", "attestation is not published")
    assert of_epoch == ("invalid", "attestation")


async def test_largest_post_is_carried_and_a_larger_frame_ends_the_link(broker: Broker) -> None:
    owner, other = await wire.mesh_of(broker.url, 2)
    largest = owner.post(GENERAL, size=limits.MAX_BODY_BYTES + 200_000)
    async with wire.member(broker.url, owner) as sending, wire.member(broker.url, other) as receiving:
        await sending.submit(largest)
        [delivery] = await receiving.deliveries(1)
        await sending.send(owner.post(GENERAL, size=limits.MAX_FRAME_BYTES * 3 // 4))
        closing = await sending.ended()

    assert len(delivery.e) == len(codec.encode_message(largest))
    assert isinstance(closing, messages.Closing)
    assert closing.code == "too_large"


@pytest.mark.parametrize("extra", [b',"x":{}}', b',"x":[[]]}', b',"x":"\xff"}'])
async def test_post_that_could_harm_where_it_is_spliced_in_ends_its_own_link(broker: Broker, extra: bytes) -> None:
    """Unknown fields are not decoded by the broker, and would end the link of every subscriber."""
    owner, other = await wire.mesh_of(broker.url, 2)
    async with wire.member(broker.url, owner) as sending, wire.member(broker.url, other) as receiving:
        await sending.send(codec.encode_message(owner.post(GENERAL))[:-1] + extra)
        closing = await sending.ended()
        alone = await receiving.quiet(messages.Push)

    assert isinstance(closing, messages.Closing)
    assert closing.code == "bad_frame"
    assert alone


async def test_posts_to_many_cost_more_of_the_senders_rate(tmp_path: Path) -> None:
    """Otherwise one link could make the broker write 50 rows a second in each of 10,000 mailboxes."""
    async with serving(
        tmp_path, limits={"messages_burst": 3, "messages_per_second": 1, "claims_per_minute_per_invite": 1_000}
    ) as broker:
        owner, *others = await wire.mesh_of(broker.url, 65)
        await private_channel(broker.url, owner, others[0])
        async with wire.member(broker.url, owner) as sending:
            await sending.submit(owner.post(GENERAL))  # costs two of the three
            await sending.submit(owner.post(DEPLOYS))
            refused = await refusal_of(sending, owner.post(DEPLOYS))

    assert refused.code == "rate_limited"
    assert refused.retry_after_ms is not None
    assert refused.retry_after_ms > 0
