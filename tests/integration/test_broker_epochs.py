"""Epochs of raw clients through a real broker (docs/spec/broker.md §4.3)."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from claudemesh.broker.app import Broker
from claudemesh.crypto import statements
from claudemesh.errors import Refused
from claudemesh.protocol import codec, limits, messages
from claudemesh.protocol.epoch_rules import slot_holders
from claudemesh.protocol.roster import EVERYONE, GENERAL
from tests import wire_client as wire
from tests.brokers import BrokerProcess, serving
from tests.channel_wire import DEPLOYS, REVIEWS, append, log_of, post_of, private_channel, refusal_of, refusal_of_epoch


async def test_epoch_reaches_every_member_with_its_own_slot(broker: Broker) -> None:
    """Its author's other links included; the record travels as it was signed, with the attestation of its signer."""
    peers = await wire.mesh_of(broker.url, 3)
    owner, bob, carol = peers
    made = owner.epoch(EVERYONE)
    async with wire.member(broker.url, owner) as link, wire.member(broker.url, bob) as bobs:
        await link.publish(made, owner)
        pushes = [await one.expect(messages.Push) for one in (link, bobs)]
    async with wire.member(broker.url, carol) as carols:
        pushes.append(await carols.expect(messages.Push))

    holders = slot_holders(owner.roster, EVERYONE, owner.roster.seq)
    slots = dict(zip(holders, made.slots, strict=True))
    for one, push in zip(peers, pushes, strict=True):
        [delivery] = push.d
        published = codec.decode_epoch(bytes(delivery.ep))
        assert (published.st, delivery.slot) == (made.statement, slots[one.id])
        assert published.att == statements.statement_digest(owner.attestation(), "att")
        assert push.atts == [owner.attestation()]


async def test_epoch_comes_before_the_post_that_needs_it(broker: Broker) -> None:
    """On an open link and out of a mailbox, whoever posts as soon as the epoch is out."""
    owner, bob, carol = await wire.mesh_of(broker.url, 3)
    async with wire.member(broker.url, owner) as link, wire.member(broker.url, bob) as bobs:
        for _ in range(2):
            await link.publish(owner.epoch(EVERYONE), owner)
            await link.send(owner.post(GENERAL))
            await link.accepted()
            await asyncio.sleep(limits.EPOCH_INTERVAL_MS / 1_000)
        online = await bobs.deliveries(4)
    async with wire.member(broker.url, carol) as carols:
        offline = await carols.deliveries(4)

    for deliveries in (online, offline):
        assert [bool(one.ep) for one in deliveries] == [True, False, True, False]


async def test_epochs_come_to_who_does_not_subscribe(broker: Broker) -> None:
    """It may write, and may be asked for the secret."""
    owner, bob = await wire.mesh_of(broker.url, 2)
    await private_channel(broker.url, owner, bob)
    async with wire.member(broker.url, owner) as link, wire.member(broker.url, bob) as bobs:
        await bobs.subscribe(DEPLOYS, False)
        await link.publish(owner.epoch(DEPLOYS), owner)
        await link.submit(owner.post(DEPLOYS))
        [delivery] = await bobs.deliveries(1)
        alone = await bobs.quiet(messages.Push)

    assert delivery.ep
    assert alone


async def test_epoch_is_published_again_when_its_answer_was_lost(tmp_path: Path) -> None:
    """Same answer, one row for each member."""
    async with serving(tmp_path, limits={"epoch_interval_ms": 1}) as broker:
        owner, bob = await wire.mesh_of(broker.url, 2)
        made = owner.epoch(EVERYONE)
        async with wire.member(broker.url, owner) as link:
            for _ in range(3):
                await link.publish(made, owner)
                await asyncio.sleep(0.01)
        async with wire.member(broker.url, bob) as bobs:
            await bobs.deliveries(1)
            alone = await bobs.quiet(messages.Push)

    assert alone


async def test_epochs_of_one_scope_have_their_pace_and_those_of_another_their_own(broker: Broker) -> None:
    owner, bob = await wire.mesh_of(broker.url, 2)
    await private_channel(broker.url, owner, bob)
    async with wire.member(broker.url, owner) as link, wire.member(broker.url, bob) as bobs:
        await link.publish(owner.epoch(EVERYONE), owner)
        with pytest.raises(Refused) as refused:
            await link.publish(owner.epoch(EVERYONE), owner)
        await link.publish(owner.epoch(DEPLOYS), owner)
        await bobs.publish(bob.epoch(EVERYONE), bob)

    assert refused.value.code == "rate_limited"
    assert refused.value.retry_after_ms is not None
    assert 0 < refused.value.retry_after_ms <= limits.EPOCH_INTERVAL_MS + 1


async def test_refused_epoch_does_not_use_up_the_pace(broker: Broker) -> None:
    """A rotator that raced a change of members makes another epoch at once."""
    owner, bob, carol = await wire.mesh_of(broker.url, 3)
    stale = owner.epoch(EVERYONE)
    await append(broker.url, owner, "revoke", bob, who=carol.id, why="lost")
    async with wire.member(broker.url, owner) as link:
        refusal = await refusal_of_epoch(link, stale, owner)
        await link.publish(owner.epoch(EVERYONE), owner)

    assert refusal == ("stale_roster", "")


async def test_epoch_must_have_exactly_one_slot_for_each_member(broker: Broker) -> None:
    owner, *_ = await wire.mesh_of(broker.url, 3)
    made = owner.epoch(EVERYONE)
    async with wire.member(broker.url, owner) as link:
        refusals = [
            await refusal_of_epoch(link, made, owner, slots=slots)
            for slots in (made.slots[:2], [*made.slots, made.slots[0]], made.slots[:1] * 100)
        ]

    assert refusals == [("invalid", "no_slot")] * 3


@pytest.mark.parametrize("slot", ["", "a" * 71, "a" * 73, "A" * 72, "a" * 71 + '"', "a" * 71 + "\n", "a" * 71 + "="])
async def test_slot_of_another_form_ends_the_link(broker: Broker, slot: str) -> None:
    """It stands in a push as it is."""
    owner, _ = await wire.mesh_of(broker.url, 2)
    made = owner.epoch(EVERYONE)
    async with wire.member(broker.url, owner) as link:
        att = statements.statement_digest(owner.attestation(), "att")
        await link.send(messages.PutEpoch(rid=1, st=made.statement, att=att, slots=[made.slots[0], slot]))
        closing = await link.ended()

    assert isinstance(closing, messages.Closing)
    assert closing.code == "bad_frame"


async def test_epoch_of_somebody_who_may_not_make_it_is_refused(broker: Broker) -> None:
    """By a member of the mesh for a private channel, in another's name, by another's session."""
    owner, bob = await wire.mesh_of(broker.url, 2)
    await private_channel(broker.url, owner)
    bob.follow((await log_of(broker.url, bob)).entries)
    async with wire.member(broker.url, bob) as link:
        outsider = await refusal_of_epoch(link, bob.epoch(DEPLOYS), bob)
        in_his_name = await refusal_of_epoch(link, bob.epoch(EVERYONE, by=owner.id), bob)
        bob.session, own = owner.session, bob.session
        stolen = bob.epoch(EVERYONE)
        bob.session = own
        by_his_session = await refusal_of_epoch(link, stolen, bob)

    assert {outsider, in_his_name, by_his_session} == {("invalid", "epoch_author")}


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"mesh": "aa" * 32}, ("invalid", "epoch_author")),
        ({"chan": REVIEWS}, ("invalid", "epoch")),
        ({"chan": GENERAL}, ("invalid", "epoch")),
        ({"rh": "aa" * 32}, ("invalid", "epoch")),
        ({"rs": 4_000}, ("invalid", "epoch")),
        ({"at": 0}, ("invalid", "att_expired")),
    ],
)
async def test_epoch_that_is_bound_to_something_else_is_refused(
    broker: Broker, changes: dict[str, Any], refusal: tuple[str, str]
) -> None:
    """Another mesh, a channel without an epoch of its own, a roster that this broker does not have, another time."""
    owner, other = await wire.mesh_of(broker.url, 2)
    made = owner.epoch(EVERYONE, **{"chan": EVERYONE, **changes})
    async with wire.member(broker.url, owner) as link, wire.member(broker.url, other) as receiving:
        refused = await refusal_of_epoch(link, made, owner)
        alone = await receiving.quiet(messages.Push)

    assert refused == refusal
    assert alone


async def test_epoch_whose_record_was_altered_is_refused(broker: Broker) -> None:
    owner, _ = await wire.mesh_of(broker.url, 2)
    made, other = owner.epoch(EVERYONE), owner.epoch(EVERYONE)
    forged = msgspec.structs.replace(made.statement, b=other.statement.b)
    async with wire.member(broker.url, owner) as link:
        refused = await refusal_of_epoch(link, made, owner, st=forged)

    assert refused == ("invalid", "bad_sig")


async def test_member_who_joins_later_gets_no_older_epoch(broker: Broker) -> None:
    """The send rule makes the next sender rotate; there is nothing to decrypt what came before."""
    owner, _ = await wire.mesh_of(broker.url, 2)
    async with wire.member(broker.url, owner) as link:
        await link.publish(owner.epoch(EVERYONE), owner)
        await link.submit(owner.post(GENERAL))
    newcomer = wire.Identity()
    await wire.join(broker.url, newcomer, owner.mesh, await wire.issue(broker.url, owner))

    async with wire.member(broker.url, newcomer) as link:
        assert link.opened is not None
        assert link.opened.queued == 0
        assert await link.quiet(messages.Push)


# Failure


async def test_posts_and_epochs_that_were_accepted_survive_kill_9(tmp_path: Path) -> None:
    """Killed while more are under way: what was accepted is delivered, in order, and once acknowledged never again."""
    async with BrokerProcess(tmp_path, "--limit", "messages_burst=10000") as broker:
        owner, bob = await wire.mesh_of(broker.url, 2)
        accepted: list[str] = []
        async with wire.member(broker.url, owner) as link:
            await link.publish(owner.epoch(EVERYONE), owner)
            for _ in range(200):
                await link.send(owner.post(GENERAL))
            while len(accepted) < 50:
                accepted += [row["id"] for row in await link.accepted()]
            await broker.kill()
        await broker.start()
        async with wire.member(broker.url, bob) as bobs:
            assert bobs.opened is not None
            deliveries = await bobs.deliveries(bobs.opened.queued)
            await bobs.acknowledge(*deliveries)
        async with wire.member(broker.url, bob) as bobs:
            assert await bobs.quiet(messages.Push)

    assert deliveries[0].ep
    assert set(accepted) <= {post_of(one).id for one in deliveries[1:]}
    assert [one.q for one in deliveries] == sorted(one.q for one in deliveries)


async def test_mesh_that_has_moved_takes_no_posts_epochs_or_subscriptions(tmp_path: Path) -> None:
    async with serving(tmp_path) as broker:
        owner, other = await wire.mesh_of(broker.url, 2)
        async with wire.member(broker.url, other) as keeps_open:
            async with wire.member(broker.url, owner) as link:
                await keeps_open.send(messages.Ping())
                move = owner.entry("broker", bk=wire.random_key().public, url="ws://127.0.0.1:1/ws")
                await link.append(move)
                owner.follow([move])
                codes = [(await refusal_of(link, owner.post(GENERAL))).code]
                codes.append((await refusal_of_epoch(link, owner.epoch(EVERYONE), owner))[0])
                with pytest.raises(Refused) as refused:
                    await link.subscribe(GENERAL, False)
                codes.append(refused.value.code)

    assert codes == ["moved"] * 3
