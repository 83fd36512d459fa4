"""What every store must do with what goes into many mailboxes: posts, epochs, and who wants them."""

import asyncio
from typing import Any

from claudemesh.broker.store.base import (
    Expired,
    FannedOut,
    FanOut,
    LinkId,
    Recipient,
    Store,
    Subscription,
    Undelivered,
    Usage,
)
from claudemesh.protocol import limits
from claudemesh.types import ChannelId, Digest, MessageId, PeerId, UnixMillis
from tests.contract.conftest import Reopen
from tests.contract.test_store import (
    ALICE,
    BOB,
    CAROL,
    LATER,
    LINK,
    MESH,
    NOW,
    OTHER_MESH,
    SECOND_LINK,
    Stored,
    notice,
    submission,
    verified,
)

DEPLOYS, REVIEWS = ChannelId("de" * 16), ChannelId("7e" * 16)
PAYLOAD = b'{"t":"post"}'


def fan_out(*to: PeerId, **changes: Any) -> FanOut:
    fields: dict[str, Any] = {
        "mesh": MESH,
        "sender": ALICE,
        "kind": "post",
        "channel": DEPLOYS,
        "id": MessageId("01" * 16),
        "priority": "next",
        "size": 1_000,
        "expires_at": UnixMillis(NOW + limits.QUEUE_LIFETIME_MS),
        "attestation": Digest("d4" * 32),
        "payload": PAYLOAD,
        "recipients": [Recipient(peer) for peer in to],
    }
    return FanOut(**fields | changes)


def epoch(slots: dict[PeerId, str], **changes: Any) -> FanOut:
    recipients = [Recipient(peer, slot=slot) for peer, slot in slots.items()]
    fields = {"kind": "epoch", "id": "e1" * 32, "priority": None, "recipients": recipients, "payload": b'{"st":{}}'}
    return fan_out(**fields | changes)


def receipt(answer: FannedOut) -> Stored:
    return Stored(0, answer.duplicate, False, answer.audit_n, answer.audit_hash, answer.accepted_at)


async def test_post_is_leased_from_every_mailbox_as_it_was_stored(store: Store) -> None:
    """Payload and attestation are shared, the row is each recipient's own."""
    [answer] = await store.fan_out([fan_out(BOB, CAROL)], NOW)
    [to_bob] = await store.lease(MESH, BOB, LINK, NOW, 10)
    [to_carol] = await store.lease(MESH, CAROL, SECOND_LINK, NOW, 10)

    assert [to_bob.q, to_carol.q] == list(answer.qs)
    assert {(row.kind, row.payload, row.attestation, row.slot) for row in (to_bob, to_carol)} == {
        ("post", PAYLOAD, "d4" * 32, "")
    }
    assert (answer.duplicate, list(answer.leased), answer.accepted_at) == (False, [False, False], NOW)


async def test_epoch_brings_each_member_its_own_slot(store: Store) -> None:
    await store.fan_out([epoch({BOB: "slot of bob", CAROL: "slot of carol"})], NOW)

    [to_bob] = await store.lease(MESH, BOB, LINK, NOW, 10)
    [to_carol] = await store.lease(MESH, CAROL, SECOND_LINK, NOW, 10)

    assert (to_bob.kind, to_bob.slot, to_carol.slot) == ("epoch", "slot of bob", "slot of carol")
    assert to_bob.payload == to_carol.payload == b'{"st":{}}'


async def test_sender_finds_whom_a_post_misses_in_its_mailbox(store: Store) -> None:
    """Stored with the post, and once: a repetition brings no second notice."""
    missed = Undelivered(MESH, CAROL, ALICE, MessageId("01" * 16))
    post = fan_out(BOB, notices=[(missed, b"carol's is full")])

    await store.fan_out([post], NOW)
    await store.fan_out([post], NOW)

    rows = await store.lease(MESH, ALICE, LINK, NOW, 10)
    assert [(row.kind, row.payload) for row in rows] == [("sys", b"carol's is full")]
    assert await store.mailbox_usage(MESH, ALICE) == Usage(1, len(b"carol's is full"))
    assert await store.mailbox_usage(MESH, CAROL) == Usage(0, 0)


async def test_one_mailbox_keeps_the_order_of_everything_that_came(store: Store) -> None:
    """An epoch stands before the post that needs it, and direct messages in between."""
    await store.append([submission()], NOW)
    await store.fan_out([epoch({BOB: "s"}), fan_out(BOB)], NOW)
    await store.append([submission()], NOW)

    rows = await store.lease(MESH, BOB, LINK, NOW, 10)

    assert [row.kind for row in rows] == ["dm", "epoch", "post", "dm"]
    assert [row.q for row in rows] == sorted(row.q for row in rows)


async def test_post_survives_reopening(reopen: Reopen) -> None:
    store = await reopen()
    [answer] = await store.fan_out([fan_out(BOB, CAROL)], NOW)

    store = await reopen()

    assert [row.q for row in await store.lease(MESH, CAROL, LINK, NOW, 10)] == [answer.qs[1]]
    assert await store.mailbox_usages(MESH, [ALICE, BOB, CAROL]) == [Usage(0, 0), Usage(1, 1_000), Usage(1, 1_000)]


async def test_repeated_post_gets_the_first_answer_while_any_row_of_it_is_stored(store: Store) -> None:
    """After the last acknowledgement the id is new again; the recipients' replay windows are not."""
    [first] = await store.fan_out([fan_out(BOB, CAROL)], NOW)
    await store.acknowledge(MESH, BOB, first.qs[:1], NOW)

    [again] = await store.fan_out([fan_out(BOB, CAROL, payload=b"other")], LATER)
    await store.acknowledge(MESH, CAROL, first.qs[1:], LATER)
    [anew] = await store.fan_out([fan_out(BOB)], LATER)

    assert again == FannedOut((), (), True, first.audit_n, first.audit_hash, NOW)
    assert await store.mailbox_usage(MESH, CAROL) == Usage(0, 0)
    assert (anew.duplicate, len(anew.qs)) == (False, 1)


async def test_same_id_in_another_channel_or_of_another_sender_is_another_post(store: Store) -> None:
    """Nobody can take an id away from somebody else, and one message to one peer does not hide it either."""
    await store.append([submission(id=MessageId("01" * 16))], NOW)

    answers = await store.fan_out(
        [
            fan_out(BOB),
            fan_out(BOB, channel=REVIEWS),
            fan_out(BOB, sender=CAROL),
            fan_out(BOB, mesh=OTHER_MESH),
            epoch({BOB: "s"}, id="01" * 16),
            fan_out(BOB),
        ],
        NOW,
    )

    assert [answer.duplicate for answer in answers] == [False] * 5 + [True]


async def test_post_to_nobody_is_only_audited(store: Store) -> None:
    [answer] = await store.fan_out([fan_out()], NOW)

    assert (list(answer.qs), answer.duplicate) == ([], False)
    assert '"metadata":{"count":0,"priority":"next","size_class":10}' in (await verified(store))[0]


async def test_one_audit_row_stands_for_all_mailboxes_and_names_no_channel(store: Store) -> None:
    [posted, made] = await store.fan_out([fan_out(BOB, CAROL), epoch({BOB: "a", CAROL: "b"})], NOW)

    rows = await verified(store, receipts=[receipt(posted), receipt(made)])

    assert len(rows) == 2
    assert '"event_type":"post"' in rows[0]
    assert '"metadata":{"count":2,"priority":"next","size_class":10}' in rows[0]
    assert '"event_type":"epoch"' in rows[1]
    assert all('"target_peer_id":""' in row and DEPLOYS not in row for row in rows)


async def test_post_is_stored_and_leased_in_one_step_where_there_is_a_link(store: Store) -> None:
    """Each recipient's row goes to that recipient's own open link, or waits."""
    await store.lease(MESH, BOB, LINK, NOW, 10)
    await store.lease(MESH, CAROL, SECOND_LINK, NOW, 10)
    to = [Recipient(BOB, LINK), Recipient(CAROL, LinkId(99)), Recipient(ALICE, LINK)]

    [answer] = await store.fan_out([fan_out(sender=CAROL, recipients=to)], NOW)

    assert list(answer.leased) == [True, False, False]
    assert await store.lease(MESH, BOB, LINK, NOW, 10) == []
    assert [row.q for row in await store.lease(MESH, CAROL, SECOND_LINK, NOW, 10)] == [answer.qs[1]]


async def test_scheduled_post_waits_for_its_time_in_every_mailbox(store: Store) -> None:
    await store.lease(MESH, BOB, LINK, NOW, 10)
    to = [Recipient(BOB, LINK), Recipient(CAROL)]

    [answer] = await store.fan_out([fan_out(recipients=to, not_before=LATER)], NOW)

    assert list(answer.leased) == [False, False]
    assert await store.lease(MESH, BOB, LINK, NOW, 10) == []
    assert await store.next_due(NOW) == LATER
    assert sorted(await store.due(NOW, LATER)) == [(MESH, BOB), (MESH, CAROL)]
    assert [row.q for row in await store.lease(MESH, BOB, LINK, LATER, 10)] == [answer.qs[0]]


async def test_posts_and_epochs_expire_without_a_word(store: Store) -> None:
    """Their senders get no notice for each member; the audit log counts them."""
    await store.fan_out([fan_out(BOB, CAROL, expires_at=LATER), epoch({BOB: "s"}, expires_at=LATER)], NOW)

    first = await store.expire(LATER, 2, notice)
    rest = await store.expire(LATER, 2, notice)

    assert [first, rest] == [Expired(2, []), Expired(1, [])]
    assert await store.mailbox_usages(MESH, [ALICE, BOB, CAROL]) == [Usage(0, 0)] * 3
    rows = await verified(store)
    assert '"event_type":"expire"' in rows[-1]
    assert '"metadata":{"count":1,"reason":"expired"}' in rows[-1]


async def test_mailbox_of_a_revoked_peer_is_dropped_with_its_posts_and_subscriptions(store: Store) -> None:
    """Senders of direct messages are told, those of posts are not; other members keep theirs."""
    await store.fan_out([fan_out(BOB, CAROL)], NOW)
    letter = submission(sender=CAROL)
    await store.append([letter], NOW)
    await store.subscribe(MESH, DEPLOYS, BOB, True)

    lost = await store.drop_mailbox(MESH, BOB, NOW, notice)

    assert [item.id for item in lost] == [letter.id]
    assert await store.mailbox_usages(MESH, [ALICE, BOB]) == [Usage(0, 0)] * 2
    assert await store.subscriptions(MESH) == []
    assert [row.kind for row in await store.lease(MESH, CAROL, LINK, NOW, 10)] == ["post", "sys"]
    assert '"metadata":{"count":2,"reason":"revoked"}' in (await verified(store))[-1]


async def test_posts_of_a_revoked_peer_are_dropped_and_its_epochs_stay(store: Store) -> None:
    """What others have sealed under those is still read."""
    await store.fan_out([epoch({BOB: "s", CAROL: "t"}), fan_out(BOB, CAROL), fan_out(BOB, sender=CAROL)], NOW)
    whose = await store.mailbox_senders(MESH, BOB)

    dropped = await store.drop_sent(MESH, ALICE, NOW, 10)

    assert whose == {ALICE: (2, 2_000), CAROL: (1, 1_000)}
    assert dropped == 2
    assert [row.kind for row in await store.lease(MESH, BOB, LINK, NOW, 10)] == ["epoch", "post"]
    assert [row.kind for row in await store.lease(MESH, CAROL, SECOND_LINK, NOW, 10)] == ["epoch"]
    await verified(store)


async def test_who_leaves_a_channel_loses_what_waits_of_it_and_nothing_else(store: Store) -> None:
    """Posts and epochs, leased or not; and what it had subscribed to."""
    await store.append([submission()], NOW)
    await store.fan_out([epoch({BOB: "s", CAROL: "t"}), fan_out(BOB, CAROL), fan_out(BOB, channel=REVIEWS)], NOW)
    await store.lease(MESH, BOB, LINK, NOW, 2)
    for channel in (DEPLOYS, REVIEWS):
        await store.subscribe(MESH, channel, BOB, False)

    dropped = await store.drop_channel(MESH, BOB, DEPLOYS, NOW)

    assert dropped == 2
    await store.release(LINK)
    assert [row.kind for row in await store.lease(MESH, BOB, SECOND_LINK, NOW, 10)] == ["dm", "post"]
    assert await store.mailbox_usages(MESH, [BOB, CAROL]) == [Usage(2, 2_000)] * 2
    assert await store.subscriptions(MESH) == [Subscription(REVIEWS, BOB, False)]
    rows = await verified(store)
    assert '"metadata":{"count":2,"reason":"left"}' in rows[-1]
    assert f'"target_peer_id":"{BOB[:16]}"' in rows[-1]
    assert await store.drop_channel(MESH, BOB, DEPLOYS, NOW) == 0
    assert len(await verified(store)) == len(rows)


async def test_peer_that_never_had_a_mailbox_has_nothing_to_drop(store: Store) -> None:
    assert await store.drop_channel(MESH, BOB, DEPLOYS, NOW) == 0


async def test_subscriptions_are_kept_replaced_and_forgotten(reopen: Reopen) -> None:
    """By mesh; they survive a restart."""
    store = await reopen()
    await store.subscribe(MESH, DEPLOYS, BOB, True)
    await store.subscribe(MESH, DEPLOYS, BOB, False)
    await store.subscribe(MESH, DEPLOYS, CAROL, True)
    await store.subscribe(OTHER_MESH, DEPLOYS, ALICE, True)

    store = await reopen()

    kept = {Subscription(DEPLOYS, BOB, False), Subscription(DEPLOYS, CAROL, True)}
    assert {*map(_key, await store.subscriptions(MESH))} == {*map(_key, kept)}
    await store.subscribe(MESH, DEPLOYS, BOB, None)
    await store.subscribe(MESH, DEPLOYS, BOB, None)
    assert await store.subscriptions(MESH) == [Subscription(DEPLOYS, CAROL, True)]


async def test_deleted_mesh_leaves_no_post_and_no_subscription(store: Store) -> None:
    """The other mesh keeps its own."""
    for mesh in (MESH, OTHER_MESH):
        await store.append_entries(mesh, -1, [b"e0"], NOW, actor=None, served=False)
        await store.fan_out([fan_out(BOB, mesh=mesh)], NOW)
        await store.subscribe(mesh, DEPLOYS, BOB, True)

    await store.delete_mesh(MESH, unserved_before=LATER)
    [again] = await store.fan_out([fan_out(BOB)], NOW)

    assert not again.duplicate
    assert await store.subscriptions(MESH) == []
    assert await store.subscriptions(OTHER_MESH) == [Subscription(DEPLOYS, BOB, True)]
    assert [row.kind for row in await store.lease(OTHER_MESH, BOB, LINK, NOW, 10)] == ["post"]


async def test_fan_outs_of_many_callers_leave_one_order_and_one_chain(store: Store) -> None:
    """Beside direct messages and acknowledgements; every mailbox ends up with what was answered."""

    async def talk(number: int) -> list[Stored]:
        [answer] = await store.fan_out([fan_out(BOB, CAROL, id=f"{number:032x}")], NOW)
        [letter] = await store.append([submission()], NOW)
        await store.acknowledge(MESH, CAROL, [answer.qs[1]], NOW)
        return [receipt(answer), letter]

    answers = await asyncio.gather(*(talk(number) for number in range(40)))

    rows = await store.lease(MESH, BOB, LINK, NOW, 1_000)
    assert (len(rows), [row.q for row in rows]) == (80, sorted(row.q for row in rows))
    assert await store.mailbox_usages(MESH, [BOB, CAROL]) == [Usage(80, 80_000), Usage(0, 0)]
    assert len(await verified(store, receipts=[one for pair in answers for one in pair])) == 120


def _key(one: Subscription) -> tuple[ChannelId, PeerId, bool]:
    return one.channel, one.peer, one.wanted
