"""Posts and the members of channels through a real broker (docs/spec/broker.md §4.3)."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from claudemesh.broker.app import Broker
from claudemesh.crypto import statements
from claudemesh.errors import Refused
from claudemesh.protocol import codec, limits, messages
from claudemesh.protocol.roster import GENERAL
from tests import wire_client as wire
from tests.brokers import serving
from tests.channel_wire import DEPLOYS, REVIEWS, append, audit_rows, post_of, private_channel, refusal_of


def notice_of(delivery: messages.Delivery, broker: Broker) -> tuple[str, str, str]:
    """What the broker says of a message of the peer that it is delivered to."""
    assert delivery.st is not None
    body = statements.open_statement(delivery.st, "sys", broker.id)
    return body["ev"], body["id"], body["who"]


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


@pytest.mark.parametrize("turn", range(5))
async def test_order_holds_while_posts_and_letters_meet_a_backlog(tmp_path: Path, turn: int) -> None:
    """With a window that is always full, from two senders at once: q ascends, and nothing is lost.

    Several turns: a letter that is submitted just before the posts of the commit under way are given their routes
    needs luck to be seen.
    """
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


async def test_full_mailbox_misses_a_post_the_others_get_it_and_its_sender_is_told(tmp_path: Path) -> None:
    """One peer that never comes back must not silence a channel, and nobody is to believe that it was reached."""
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
            told = [notice_of(one, broker) for one in await sending.deliveries(2)]
            repeated = await sending.submit(posts[3])
            silent = await sending.quiet(messages.Push)
        async with wire.member(broker.url, bob) as bobs:
            kept = [post_of(one).id for one in await bobs.deliveries(2)]
            alone = await bobs.quiet(messages.Push)

    assert got == [post.id for post in posts]
    assert (kept, alone) == (got[:2], True)
    assert told == [("mailbox_full", post, bob.id) for post in got[2:]]
    assert (repeated["id"], silent) == (got[3], True)


async def test_notices_cost_their_sender_messages_and_stop_where_its_own_mailbox_is_full(tmp_path: Path) -> None:
    """Whoever posts to many that are full has the broker sign for each: it slows down, and what waits stays bounded."""
    async with serving(tmp_path, limits={"mailbox_rows": 3, "messages_burst": 4, "messages_per_second": 1}) as broker:
        owner, *others = await wire.mesh_of(broker.url, 4)
        async with wire.member(broker.url, owner) as sending, wire.member(broker.url, others[0]) as reading:
            for _ in range(3):
                await sending.submit(owner.post(GENERAL))
            await reading.acknowledge(*await reading.deliveries(3))
            await sending.submit(owner.post(GENERAL))
            with pytest.raises(Refused) as refused:
                await sending.submit(owner.post(GENERAL))
            usage = await broker._store.mailbox_usage(owner.mesh, owner.id)

    assert refused.value.code == "rate_limited"
    assert refused.value.retry_after_ms is not None
    assert refused.value.retry_after_ms > 2_000
    assert usage.rows == 2


async def test_nobody_is_named_where_a_post_has_too_many_recipients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There nobody sends a receipt either: the post is known to be accepted, and no more."""
    monkeypatch.setattr(limits, "MAX_CONFIRMED", 1)
    async with serving(tmp_path, limits={"mailbox_rows": 1}) as broker:
        owner, _, carol = await wire.mesh_of(broker.url, 3)
        async with wire.member(broker.url, owner) as sending, wire.member(broker.url, carol) as carols:
            for _ in range(2):
                await sending.submit(owner.post(GENERAL))
                await carols.acknowledge(*await carols.deliveries(1))
            silent = await sending.quiet(messages.Push)

    assert silent


@pytest.mark.parametrize("limit", ["mailbox_rows", "mesh_rows"])
async def test_post_that_all_would_miss_is_refused_and_may_come_again(tmp_path: Path, limit: str) -> None:
    """Nothing of it is stored, so it is not accepted; when there is room again it is."""
    async with serving(tmp_path, limits={"reserved_rows": 1, limit: 1}) as broker:
        owner, bob = await wire.mesh_of(broker.url, 2)
        first, second = owner.post(GENERAL), owner.post(GENERAL)
        async with wire.member(broker.url, owner) as sending:
            await sending.submit(first)
            with pytest.raises(Refused) as refused:
                await sending.submit(second)
            async with wire.member(broker.url, bob) as bobs:
                await bobs.acknowledge(*await bobs.deliveries(1))
                await sending.submit(second)
                [delivery] = await bobs.deliveries(1)

    assert (refused.value.code, refused.value.retry_after_ms) == ("mailbox_full", 60_000)
    assert post_of(delivery).id == second.id
