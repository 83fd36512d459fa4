"""Who gets the posts of a channel, and what is left to who leaves it (docs/spec/broker.md §4.3)."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from claudemesh.broker.app import Broker
from claudemesh.errors import Refused
from claudemesh.protocol import codec, limits, messages
from claudemesh.protocol.roster import EVERYONE, GENERAL, SPACE
from tests import wire_client as wire
from tests.brokers import BrokerProcess, serving
from tests.channel_wire import DEPLOYS, REVIEWS, append, audit_rows, post_of, private_channel


async def test_who_leaves_a_channel_loses_what_waited_of_it(broker: Broker) -> None:
    """Posts and epochs of that channel; letters and posts of other channels stay. Nobody is told."""
    owner, bob = await wire.mesh_of(broker.url, 2)
    await private_channel(broker.url, owner, bob)
    async with wire.member(broker.url, owner) as link:
        await link.publish(owner.epoch(DEPLOYS), owner)
        await link.submit(owner.post(DEPLOYS))
        await link.submit(owner.post(GENERAL))
        await link.submit(owner.envelope(bob.id))
        entry = owner.entry("chan_del", chan=DEPLOYS, who=bob.id)
        await link.append(entry)
        owner.follow([entry])
        await link.submit(owner.post(DEPLOYS))
        told = [one for one in await link.deliveries(1) if one.st is not None]

    async with wire.member(broker.url, bob) as bobs:
        deliveries = await bobs.deliveries(2)
        alone = await bobs.quiet(messages.Push)

    kinds = [type(codec.decode_envelope(bytes(one.e))) for one in deliveries]
    assert kinds == [messages.Post, messages.Send]
    assert post_of(deliveries[0]).chan == GENERAL
    assert (told, alone) == ([], True)


async def test_revoked_peer_loses_posts_and_epochs_and_its_payloads_go(tmp_path: Path) -> None:
    """What it alone had not fetched is in the database no more."""
    async with serving(tmp_path) as broker:
        owner, bob = await wire.mesh_of(broker.url, 2)
        await private_channel(broker.url, owner, bob)
        async with wire.member(broker.url, owner) as link:
            await link.submit(owner.post(DEPLOYS))
            await link.submit(owner.post(GENERAL))
            await link.append(owner.entry("revoke", who=bob.id, why="stolen"))
            rows = await audit_rows(link)
            while rows[-1]["event_type"] != "drop":
                rows = await audit_rows(link)
        with closing(sqlite3.connect(tmp_path / "broker.db")) as database:
            [left] = database.execute(
                "SELECT (SELECT count(*) FROM mailbox), (SELECT count(*) FROM payloads)"
            ).fetchall()

    assert rows[-1]["metadata"] == {"count": 2, "reason": "revoked"}
    assert left == (0, 0)


async def test_member_who_comes_back_into_a_channel_gets_its_posts_again(broker: Broker) -> None:
    """Its wish not to get them ended when it left."""
    owner, bob = await wire.mesh_of(broker.url, 2)
    await private_channel(broker.url, owner, bob)
    async with wire.member(broker.url, bob) as bobs:
        await bobs.subscribe(DEPLOYS, False)
    await append(broker.url, owner, "chan_del", bob, chan=DEPLOYS, who=bob.id)
    await append(broker.url, owner, "chan_add", bob, chan=DEPLOYS, who=bob.id)

    async with wire.member(broker.url, owner) as link, wire.member(broker.url, bob) as bobs:
        await link.submit(owner.post(DEPLOYS))
        [delivery] = await bobs.deliveries(1)

    assert post_of(delivery).chan == DEPLOYS


# Subscriptions


async def test_posts_come_by_the_rule_of_the_channel_until_a_peer_says_otherwise(broker: Broker) -> None:
    """On: general, space, private channels, groups. Off: everybody's, and open channels that somebody made."""
    owner, bob = await wire.mesh_of(broker.url, 2)
    await append(broker.url, owner, "chan", bob, chan=REVIEWS, kind="open")
    await private_channel(broker.url, owner, bob, kind="group")
    channels = [GENERAL, SPACE, DEPLOYS, EVERYONE, REVIEWS]

    async def received(link: wire.Wire, bobs: wire.Wire) -> list[str]:
        for channel in channels:
            await link.submit(owner.post(channel))
        await link.submit(owner.envelope(bob.id))
        got: list[str] = []
        while True:
            for one in (await bobs.expect(messages.Push)).d:
                envelope = codec.decode_envelope(bytes(one.e))
                if isinstance(envelope, messages.Send):
                    return got
                got.append(envelope.chan)

    async with wire.member(broker.url, owner) as link, wire.member(broker.url, bob) as bobs:
        by_rule = await received(link, bobs)
        for channel in channels:
            await bobs.subscribe(channel, channel not in by_rule)
        reversed_ = await received(link, bobs)
        for channel in channels:
            await bobs.subscribe(channel, channel in by_rule)
        again = await received(link, bobs)

    assert by_rule == [GENERAL, SPACE, DEPLOYS]
    assert reversed_ == [EVERYONE, REVIEWS]
    assert again == by_rule


async def test_subscription_survives_a_restart_of_the_broker(tmp_path: Path) -> None:
    async with BrokerProcess(tmp_path, "--limit", "failed_handshakes_per_minute=1000") as broker:
        owner, bob = await wire.mesh_of(broker.url, 2)
        async with wire.member(broker.url, bob) as bobs:
            await bobs.subscribe(GENERAL, False)
            await bobs.subscribe(EVERYONE, True)
        await broker.kill()
        await broker.start()
        async with wire.member(broker.url, owner) as link:
            for channel in (GENERAL, EVERYONE):
                await link.submit(owner.post(channel))
        await broker.kill()
        await broker.start()
        async with wire.member(broker.url, bob) as bobs:
            [delivery] = await bobs.deliveries(1)
            alone = await bobs.quiet(messages.Push)

    assert post_of(delivery).chan == EVERYONE
    assert alone


async def test_nobody_subscribes_to_a_channel_that_it_is_not_in(broker: Broker) -> None:
    owner, bob = await wire.mesh_of(broker.url, 2)
    await private_channel(broker.url, owner)
    async with wire.member(broker.url, bob) as bobs:
        codes = []
        for channel in (DEPLOYS, REVIEWS):
            with pytest.raises(Refused) as refused:
                await bobs.subscribe(channel, True)
            codes.append(refused.value.code)

    assert codes == ["invalid"] * 2


async def test_peer_has_so_many_subscriptions_and_no_more(tmp_path: Path) -> None:
    """What is the rule anyway costs nothing, and giving one up makes room."""
    async with serving(tmp_path, limits={"subscriptions_per_peer": 2}) as broker:
        owner, _ = await wire.mesh_of(broker.url, 2)
        async with wire.member(broker.url, owner) as link:
            await link.subscribe(GENERAL, True)
            await link.subscribe(EVERYONE, True)
            await link.subscribe(SPACE, False)
            with pytest.raises(Refused) as refused:
                await link.subscribe(GENERAL, False)
            await link.subscribe(EVERYONE, False)
            await link.subscribe(GENERAL, False)

    assert refused.value.code == "limit"


async def test_peer_that_wants_ten_thousand_channels_gets_256(tmp_path: Path) -> None:
    """The roster refuses the rest, and the broker with it; nobody else is kept from making channels."""
    generous = {"appends_per_minute": 100_000, "requests_burst": 100_000, "requests_per_second": 100_000}
    async with serving(tmp_path, limits=generous) as broker:
        owner, bob = await wire.mesh_of(broker.url, 2)
        async with wire.member(broker.url, bob) as link:
            made = 0
            while made < limits.CHANNELS_PER_PEER:
                entries = []
                for _ in range(128):
                    entries.append(bob.entry("chan", chan=os.urandom(16).hex(), kind="open"))
                    bob.follow(entries[-1:])
                await link.append(*entries)
                made += len(entries)
            refusals = []
            for _ in range(20):
                with pytest.raises(Refused) as refused:
                    await link.append(bob.entry("chan", chan=os.urandom(16).hex(), kind="private"))
                refusals.append((refused.value.code, refused.value.detail))
        await append(broker.url, owner, "chan", chan=DEPLOYS, kind="open")

    assert refusals == [("invalid", "denied chan_limit")] * 20
