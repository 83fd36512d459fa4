"""Channels through a real broker: posts, epochs and subscriptions of raw clients (docs/spec/broker.md §4.3)."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from claudemesh.broker.app import Broker
from claudemesh.crypto import statements
from claudemesh.errors import Refused
from claudemesh.protocol import codec, limits, messages
from claudemesh.protocol.epoch_rules import slot_holders
from claudemesh.protocol.roster import EVERYONE, GENERAL, SPACE
from claudemesh.types import ChannelId
from tests import wire_client as wire
from tests.brokers import BrokerProcess, serving

DEPLOYS = ChannelId("de" * 16)
REVIEWS = ChannelId("7e" * 16)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with serving(tmp_path) as running:
        yield running


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


async def refusal_of_epoch(sender: wire.Wire, made: Any, by: wire.Identity, **changes: Any) -> tuple[str, str]:
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


# Posts


async def test_post_reaches_every_other_member_as_its_sender_wrote_it(broker: Broker) -> None:
    """One frame in, one push to each, byte for byte; its sender gets the answer and no copy."""
    owner, bob, carol = await wire.mesh_of(broker.url, 3)
    post = owner.post(GENERAL)

    async with wire.member(broker.url, owner) as sending, wire.member(broker.url, bob) as bobs:
        async with wire.member(broker.url, carol) as carols:
            row = await sending.submit(post)
            pushes = [await link.expect(messages.Push) for link in (bobs, carols)]
            alone = await sending.quiet(messages.Push)

    assert set(row) == {"chan", "h", "id", "n"}
    assert (row["chan"], row["id"]) == (GENERAL, post.id)
    assert [bytes(push.d[0].e) for push in pushes] == [codec.encode_message(post)] * 2
    assert [push.atts for push in pushes] == [[owner.attestation()]] * 2
    assert alone


async def test_answer_to_a_post_is_the_brokers_signed_word(broker: Broker) -> None:
    """Its row names the audit row that records the post, with the number of mailboxes and no channel."""
    owner, _, _ = await wire.mesh_of(broker.url, 3)
    async with wire.member(broker.url, owner) as sending:
        await sending.send(owner.post(GENERAL))
        [row] = await sending.accepted()
        recorded = (await audit_rows(sending))[row["n"]]

    assert recorded["event_type"] == "post"
    assert (recorded["actor_peer_id"], recorded["target_peer_id"]) == (owner.id[:16], "")
    assert recorded["metadata"] == {"count": 2, "priority": "next", "size_class": 12}


async def test_offline_members_get_posts_among_their_letters_in_order(broker: Broker) -> None:
    owner, other = await wire.mesh_of(broker.url, 2)
    envelopes = [owner.post(GENERAL) if number % 2 else owner.envelope(other.id) for number in range(40)]
    async with wire.member(broker.url, owner) as sending:
        for envelope in envelopes:
            await sending.submit(envelope)

    async with wire.member(broker.url, other) as receiving:
        deliveries = await receiving.deliveries(len(envelopes))

    assert [codec.decode_envelope(bytes(one.e)).id for one in deliveries] == [one.id for one in envelopes]
    assert [one.q for one in deliveries] == sorted(one.q for one in deliveries)


async def test_order_holds_while_posts_and_letters_meet_a_backlog(tmp_path: Path) -> None:
    """With a window that is always full, from two senders at once: q ascends, and nothing is lost."""
    generous = {"unacknowledged_pushes": 8, "messages_burst": 10_000}
    async with serving(tmp_path, limits=generous) as broker:
        owner, friend, other = await wire.mesh_of(broker.url, 3)

        async def talk(one: wire.Identity) -> None:
            async with wire.member(broker.url, one) as sending:
                for number in range(150):
                    await sending.send(one.post(GENERAL) if number % 3 else one.envelope(other.id))
                    await asyncio.sleep(0)
                answered = 0
                while answered < 150:
                    answered += len(await sending.accepted())

        talking = asyncio.gather(talk(owner), talk(friend))
        async with wire.member(broker.url, other) as receiving:
            qs: list[int] = []
            while len(qs) < 300:
                batch = [one.q for one in (await receiving.expect(messages.Push)).d]
                qs += batch
                await receiving.send(messages.Ack(q=batch))
        await talking

    assert qs == sorted(set(qs))


async def test_repeated_post_is_answered_again_and_delivered_once(broker: Broker) -> None:
    owner, other = await wire.mesh_of(broker.url, 2)
    post = owner.post(GENERAL)

    async with wire.member(broker.url, owner) as sending, wire.member(broker.url, other) as receiving:
        first = await sending.submit(post)
        again = await sending.submit(post)
        await receiving.deliveries(1)
        alone = await receiving.quiet(messages.Push)

    assert first == again
    assert alone


async def test_post_where_nobody_else_is_is_accepted(broker: Broker) -> None:
    """The first member of a mesh may write before anybody has joined; nobody who joins later gets it."""
    owner = wire.Identity()
    await wire.found(broker.url, owner)
    async with wire.member(broker.url, owner) as sending:
        row = await sending.submit(owner.post(GENERAL))
        recorded = (await audit_rows(sending))[row["n"]]

    assert recorded["metadata"]["count"] == 0


async def test_other_devices_of_the_sender_get_its_posts(broker: Broker) -> None:
    """They are peers of their own; only the sending peer is left out, on all of its links."""
    owner = wire.Identity()
    await wire.found(broker.url, owner)
    phone = wire.Identity()
    phone.user, phone.is_linked = owner.user, True
    invite = wire.random_key()
    own: dict[str, Any] = {"inv": invite.public, "role": "member", "uses": 1, "user": owner.user.public}
    async with wire.member(broker.url, owner) as link:
        entry = owner.entry("invite", invite, exp=wire.now() + limits.DAY_MS, **own)
        await link.append(entry)
        owner.follow([entry])
    await wire.join(broker.url, phone, owner.mesh, invite)

    async with wire.member(broker.url, owner) as sending, wire.member(broker.url, phone) as receiving:
        await sending.submit(owner.post(GENERAL))
        [delivery] = await receiving.deliveries(1)

    assert post_of(delivery).sender == owner.id


async def test_private_channel_reaches_its_members_only(broker: Broker) -> None:
    owner, bob, carol = await wire.mesh_of(broker.url, 3)
    await private_channel(broker.url, owner, bob)

    async with wire.member(broker.url, owner) as sending, wire.member(broker.url, bob) as bobs:
        async with wire.member(broker.url, carol) as carols:
            await sending.submit(owner.post(DEPLOYS))
            [delivery] = await bobs.deliveries(1)
            alone = await carols.quiet(messages.Push)

    assert post_of(delivery).chan == DEPLOYS
    assert alone


async def test_post_to_a_channel_that_one_is_not_in_is_refused(broker: Broker) -> None:
    """An owner of the mesh included; a channel that does not exist is refused in the same way."""
    owner, bob = await wire.mesh_of(broker.url, 2)
    await private_channel(broker.url, bob)
    async with wire.member(broker.url, owner) as sending:
        refusals = [await refusal_of(sending, owner.post(channel)) for channel in (DEPLOYS, REVIEWS)]
        await sending.send(owner.post(DEPLOYS, id="0d" * 16))
        frame = await sending.expect(messages.Refused)

    assert [(one.code, one.detail) for one in refusals] == [("invalid", "the sender is not in the channel")] * 2
    assert (frame.id, frame.chan, frame.to) == ("0d" * 16, DEPLOYS, None)


async def test_who_was_removed_from_a_channel_may_not_post_to_it(broker: Broker) -> None:
    owner, bob = await wire.mesh_of(broker.url, 2)
    await private_channel(broker.url, owner, bob)
    await append(broker.url, owner, "chan_del", bob, chan=DEPLOYS, who=bob.id)

    async with wire.member(broker.url, bob) as sending:
        refused = await refusal_of(sending, bob.post(DEPLOYS))

    assert refused.code == "invalid"


@pytest.mark.parametrize("change", ["admit", "chan_add", "revoke", "chan_del"])
async def test_post_sealed_before_the_last_change_of_members_is_refused(broker: Broker, change: str) -> None:
    """With an honest broker nothing is delivered that misses a member, or that a removed one can read."""
    owner, bob, carol, dave = await wire.mesh_of(broker.url, 4)
    await private_channel(broker.url, owner, bob, carol)
    channel = GENERAL if change in ("admit", "revoke") else DEPLOYS
    stale = bob.roster.seq
    if change == "admit":
        invite = await wire.issue(broker.url, owner)
        await wire.join(broker.url, wire.Identity(), owner.mesh, invite)
    else:
        who = dave if change == "chan_add" else carol
        fields = {"why": "removed"} if change == "revoke" else {"chan": DEPLOYS}
        await append(broker.url, owner, change, who=who.id, **fields)

    async with wire.member(broker.url, bob) as sending:
        refused = await refusal_of(sending, bob.post(channel, rs=stale))
        row = await sending.submit(bob.post(channel))

    assert (refused.code, refused.retryable) == ("stale_roster", True)
    assert row["chan"] == channel


async def test_change_that_concerns_another_channel_stales_nothing(broker: Broker) -> None:
    """Members of a private channel need not seal again because somebody joined the mesh."""
    owner, bob = await wire.mesh_of(broker.url, 2)
    await private_channel(broker.url, owner, bob)
    invite = await wire.issue(broker.url, owner)
    sealed = bob.post(DEPLOYS)
    await wire.join(broker.url, wire.Identity(), owner.mesh, invite)

    async with wire.member(broker.url, bob) as sending:
        row = await sending.submit(sealed)

    assert row["id"] == sealed.id


async def test_scheduled_post_is_delivered_when_its_time_has_come(broker: Broker) -> None:
    owner, other = await wire.mesh_of(broker.url, 2)
    async with wire.member(broker.url, owner) as sending, wire.member(broker.url, other) as receiving:
        later, at_once = owner.post(GENERAL, nbf=wire.now() + 400), owner.post(GENERAL)
        await sending.submit(later)
        await sending.submit(at_once)
        deliveries = await receiving.deliveries(2)

    assert [post_of(one).id for one in deliveries] == [at_once.id, later.id]


async def test_full_mailbox_misses_a_post_and_the_others_get_it(tmp_path: Path) -> None:
    """One peer that never comes back must not silence a channel."""
    async with serving(tmp_path, limits={"mailbox_rows": 2}) as broker:
        owner, bob, carol = await wire.mesh_of(broker.url, 3)
        posts = [owner.post(GENERAL) for _ in range(4)]
        async with wire.member(broker.url, owner) as sending, wire.member(broker.url, carol) as carols:
            got = []
            for post in posts:
                await sending.submit(post)
                [delivery] = await carols.deliveries(1)
                await carols.acknowledge(delivery)
                got.append(post_of(delivery).id)
        async with wire.member(broker.url, bob) as bobs:
            kept = [post_of(one).id for one in await bobs.deliveries(2)]
            alone = await bobs.quiet(messages.Push)

    assert got == [post.id for post in posts]
    assert (kept, alone) == (got[:2], True)


# Hostile posts


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


# Epochs


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


# Leaving


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


async def log_of(url: str, one: wire.Identity) -> messages.Log:
    async with wire.member(url, one) as link:
        return await link.request(messages.Log, messages.Sync, seq=one.roster.seq + 1)
