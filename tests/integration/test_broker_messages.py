"""Envelopes through a real broker: real sockets, real SQLite, raw clients (docs/spec/broker.md §4)."""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from claudemesh.broker.app import Broker
from claudemesh.crypto import identity, statements
from claudemesh.errors import Refused
from claudemesh.protocol import codec, messages
from tests import wire_client as wire
from tests.brokers import serving


async def refusal_of(sender: wire.Wire, envelope: messages.Send) -> Refused:
    with pytest.raises(Refused) as refused:
        await sender.submit(envelope)
    return refused.value


async def test_envelope_reaches_its_recipient_as_its_sender_wrote_it(broker: Broker) -> None:
    """What is pushed is the sender's own frame, byte for byte, with the attestation that it names."""
    owner, other = await wire.mesh_of(broker.url, 2)
    letter = owner.envelope(other.id)

    async with wire.member(broker.url, owner) as sending, wire.member(broker.url, other) as receiving:
        row = await sending.submit(letter)
        push = await receiving.expect(messages.Push)

    assert row["to"] == other.id
    assert bytes(push.d[0].e) == codec.encode_message(letter)
    assert push.atts == [owner.attestation()]


async def test_unix_socket_carries_the_same_wire(tmp_path: Path) -> None:
    """The origin of a Unix socket is its own URL, which a hello over it signs."""
    async with serving(tmp_path, unix=tmp_path / "b.sock", listen=None) as broker:
        url = f"unix://{tmp_path / 'b.sock'}"
        owner, other = await wire.mesh_of(url, 2)

        async with wire.member(url, owner) as sending, wire.member(url, other) as receiving:
            await sending.submit(owner.envelope(other.id))
            deliveries = await receiving.deliveries(1)

        mode = (tmp_path / "b.sock").stat().st_mode & 0o777

    assert (broker.url, len(deliveries), mode) == (url, 1, 0o600)


async def test_offline_recipient_gets_everything_in_order_of_acceptance(broker: Broker) -> None:
    owner, other = await wire.mesh_of(broker.url, 2)
    letters = [owner.envelope(other.id) for _ in range(100)]
    async with wire.member(broker.url, owner) as sending:
        for letter in letters:
            await sending.send(letter)
        accepted: list[dict[str, Any]] = []
        while len(accepted) < len(letters):
            accepted += await sending.accepted()

    async with wire.member(broker.url, other) as receiving:
        deliveries = await receiving.deliveries(len(letters))

    ids = [codec.decode_send(bytes(one.e)).id for one in deliveries]
    assert ids == [letter.id for letter in letters]
    assert [one.q for one in deliveries] == sorted(one.q for one in deliveries)


async def test_order_holds_while_a_backlog_and_new_envelopes_meet(tmp_path: Path) -> None:
    """A link that opens in the middle of a burst, with a small window, sees one unbroken order."""
    async with serving(tmp_path, limits={"unacknowledged_pushes": 8, "messages_burst": 10_000}) as broker:
        owner, other = await wire.mesh_of(broker.url, 2)
        letters = [owner.envelope(other.id) for _ in range(300)]

        async def send_all(sending: wire.Wire) -> None:
            for letter in letters:
                await sending.send(letter)
                await asyncio.sleep(0)

        async with wire.member(broker.url, owner) as sending:
            burst = asyncio.create_task(send_all(sending))
            await asyncio.sleep(0.01)
            async with wire.member(broker.url, other) as receiving:
                received: list[messages.Delivery] = []
                while len(received) < len(letters):
                    [*batch] = (await receiving.expect(messages.Push)).d
                    received += batch
                    await receiving.send(messages.Ack(q=[one.q for one in batch]))
            await burst

    assert [codec.decode_send(bytes(one.e)).id for one in received] == [letter.id for letter in letters]


async def test_repeated_envelope_is_answered_again_and_delivered_once(broker: Broker) -> None:
    """A sender whose answer was lost sends again: same audit row, one delivery."""
    owner, other = await wire.mesh_of(broker.url, 2)
    letter = owner.envelope(other.id)

    async with wire.member(broker.url, owner) as sending, wire.member(broker.url, other) as receiving:
        first = await sending.submit(letter)
        again = await sending.submit(letter)
        await receiving.deliveries(1)
        alone = await receiving.quiet(messages.Push)

    assert first == again
    assert alone


async def test_unacknowledged_delivery_comes_again_and_an_acknowledged_one_does_not(broker: Broker) -> None:
    """At least once until the acknowledgement, never after it."""
    owner, other = await wire.mesh_of(broker.url, 2)
    async with wire.member(broker.url, owner) as sending:
        for _ in range(2):
            await sending.submit(owner.envelope(other.id))
    async with wire.member(broker.url, other) as receiving:
        first, second = await receiving.deliveries(2)
        await receiving.acknowledge(first)

    async with wire.member(broker.url, other) as receiving:
        [again] = await receiving.deliveries(1)
        await receiving.acknowledge(again)
        alone = await receiving.quiet(messages.Push)

    assert again == second
    assert alone


async def test_cursor_of_a_hello_deletes_what_was_recorded(broker: Broker) -> None:
    """A peer whose acknowledgement was lost with its link says so when it comes back."""
    owner, other = await wire.mesh_of(broker.url, 2)
    async with wire.member(broker.url, owner) as sending:
        await sending.submit(owner.envelope(other.id))
    async with wire.member(broker.url, other) as receiving:
        [recorded] = await receiving.deliveries(1)

    async with wire.member(broker.url, other, cursor=(recorded.q,)) as receiving:
        assert receiving.opened is not None
        assert receiving.opened.queued == 0
        assert await receiving.quiet(messages.Push)


async def test_nobody_acknowledges_for_another(broker: Broker) -> None:
    """Numbers of rows are easy to guess; guessing them deletes nothing."""
    owner, other, third = await wire.mesh_of(broker.url, 3)
    async with wire.member(broker.url, owner) as sending:
        await sending.submit(owner.envelope(other.id))
    async with wire.member(broker.url, third, cursor=tuple(range(20))) as thief:
        await thief.send(messages.Ack(q=list(range(50))))
        await thief.quiet(messages.Push, 0.05)

    async with wire.member(broker.url, other) as receiving:
        assert len(await receiving.deliveries(1)) == 1


async def test_newest_link_of_a_peer_gets_what_comes_next(broker: Broker) -> None:
    owner, other = await wire.mesh_of(broker.url, 2)
    async with wire.member(broker.url, other) as old:
        other.session = identity.session_keys(os.urandom(64))
        async with wire.member(broker.url, other) as new, wire.member(broker.url, owner) as sending:
            await sending.submit(owner.envelope(other.id))

            assert len(await new.deliveries(1)) == 1
            assert await old.quiet(messages.Push)


async def test_second_link_of_a_session_replaces_the_first_and_inherits_its_deliveries(broker: Broker) -> None:
    owner, other = await wire.mesh_of(broker.url, 2)
    async with wire.member(broker.url, owner) as sending, wire.member(broker.url, other) as first:
        await sending.submit(owner.envelope(other.id))
        await first.deliveries(1)

        async with wire.member(broker.url, other) as second:
            closing = await first.ended()
            deliveries = await second.deliveries(1)

    assert closing is not None
    assert closing.code == "replaced"
    assert len(deliveries) == 1


async def test_what_one_link_had_goes_to_the_next_however_the_two_meet(broker: Broker) -> None:
    """The lease of the new link may be under way while that of the old one ends: nothing waits for a third link."""
    owner, other = await wire.mesh_of(broker.url, 2)
    async with wire.member(broker.url, owner) as sending, contextlib.AsyncExitStack() as links:
        await sending.submit(owner.envelope(other.id))
        before = await links.enter_async_context(wire.member(broker.url, other))
        for _ in range(40):
            after = await links.enter_async_context(wire.member(broker.url, other))
            await before.ended()

            assert len(await after.deliveries(1)) == 1
            before = after


async def test_unacknowledged_pushes_stop_at_the_window_and_go_on_with_acknowledgements(tmp_path: Path) -> None:
    """A recipient that does not acknowledge holds a bounded number of envelopes of the broker's memory."""
    async with serving(tmp_path, limits={"unacknowledged_pushes": 4}) as broker:
        owner, other = await wire.mesh_of(broker.url, 2)
        async with wire.member(broker.url, owner) as sending, wire.member(broker.url, other) as receiving:
            for _ in range(10):
                await sending.submit(owner.envelope(other.id))
            held = await receiving.deliveries(4)
            stopped = await receiving.quiet(messages.Push)
            await receiving.acknowledge(*held)
            more = await receiving.deliveries(4)

    assert stopped
    assert len(more) == 4


async def test_scheduled_envelope_waits_for_its_time(broker: Broker) -> None:
    owner, other = await wire.mesh_of(broker.url, 2)
    async with wire.member(broker.url, owner) as sending, wire.member(broker.url, other) as receiving:
        due_at = wire.now() + 700
        await sending.submit(owner.envelope(other.id, nbf=due_at))
        await sending.submit(owner.envelope(other.id))
        [first] = await receiving.deliveries(1)
        [second] = await receiving.deliveries(1)
        delivered_at = wire.now()

    assert codec.decode_send(bytes(first.e)).nbf is None
    assert codec.decode_send(bytes(second.e)).nbf == due_at
    assert delivered_at >= due_at


async def test_expired_envelope_is_dropped_and_its_sender_is_told(broker: Broker) -> None:
    """Nobody fetched it in time: the sender learns so, by a signed notice in its own mailbox."""
    owner, other = await wire.mesh_of(broker.url, 2)
    letter = owner.envelope(other.id, exp=wire.now() + 300)

    async with wire.member(broker.url, owner) as sending:
        await sending.submit(letter)
        [notice] = await sending.deliveries(1)
        assert notice.st is not None
        body = statements.open_statement(notice.st, "sys", broker.id)

    assert (body["ev"], body["id"], body["who"]) == ("expired", letter.id, other.id)
    async with wire.member(broker.url, other) as receiving:
        assert await receiving.quiet(messages.Push)


async def test_attestation_is_pushed_once_per_link(broker: Broker) -> None:
    owner, other = await wire.mesh_of(broker.url, 2)
    async with wire.member(broker.url, owner) as sending, wire.member(broker.url, other) as receiving:
        seen = []
        for _ in range(3):
            await sending.submit(owner.envelope(other.id))
            seen.append(len((await receiving.expect(messages.Push)).atts))

    assert seen == [1, 0, 0]


async def test_attestation_of_an_ended_session_survives_a_restart_of_the_broker(tmp_path: Path) -> None:
    """The recipient of a queued envelope can verify it, however long its sender is gone."""
    async with serving(tmp_path) as broker:
        owner, other = await wire.mesh_of(broker.url, 2)
        async with wire.member(broker.url, owner) as sending:
            await sending.submit(owner.envelope(other.id))
    async with serving(tmp_path) as broker, wire.member(broker.url, other) as receiving:
        push = await receiving.expect(messages.Push)

    assert push.atts == [owner.attestation()]


async def test_envelope_for_somebody_who_is_no_peer_is_refused(broker: Broker) -> None:
    owner, _ = await wire.mesh_of(broker.url, 2)
    async with wire.member(broker.url, owner) as sending:
        refused = await refusal_of(sending, owner.envelope(wire.Identity().id))

    assert refused.code == "unknown_peer"


@pytest.mark.parametrize("lie", ["mesh", "sender", "att", "late", "far"])
async def test_envelope_that_contradicts_its_link_is_refused(broker: Broker, lie: str) -> None:
    """A link speaks for one peer of one mesh, through attestations that it published, within the queue's lifetime."""
    owner, other = await wire.mesh_of(broker.url, 2)
    wrong: dict[str, dict[str, Any]] = {
        "mesh": {"mesh": "a" * 64},
        "sender": {"sender": other.id},
        "att": {"att": "b" * 64},
        "late": {"exp": wire.now() - 1},
        "far": {"nbf": wire.now() + 15 * 86_400_000},
    }

    async with wire.member(broker.url, owner) as sending:
        refused = await refusal_of(sending, owner.envelope(other.id, **wrong[lie]))

    assert refused.code == "invalid"


async def test_envelope_sealed_before_the_recipients_rekey_is_refused_as_stale(broker: Broker) -> None:
    owner, other = await wire.mesh_of(broker.url, 2)
    before = owner.envelope(other.id)
    async with wire.member(broker.url, other) as wanting, wire.member(broker.url, owner) as sending:
        await wanting.append(other.entry("rekey", box=os.urandom(32).hex(), cs=5))
        log = await sending.expect(messages.Log, rid=None)
        while not log.entries:
            log = await sending.expect(messages.Log, rid=None)
        owner.follow(log.entries)
        refused = await refusal_of(sending, before)
        await sending.submit(owner.envelope(other.id))

    assert refused.code == "stale_roster"
    assert refused.retryable


async def test_full_mailbox_refuses_and_has_room_again_when_it_is_drained(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"mailbox_rows": 3}) as broker:
        owner, other = await wire.mesh_of(broker.url, 2)
        async with wire.member(broker.url, owner) as sending:
            for _ in range(3):
                await sending.submit(owner.envelope(other.id))
            refused = await refusal_of(sending, owner.envelope(other.id))
            async with wire.member(broker.url, other) as receiving:
                await receiving.acknowledge(*await receiving.deliveries(3))
                await receiving.quiet(messages.Push)
                await sending.submit(owner.envelope(other.id))

    assert refused.code == "mailbox_full"
    assert refused.retry_after_ms is not None


async def test_a_full_mesh_takes_no_more_than_is_reserved_and_leaves_other_meshes_alone(tmp_path: Path) -> None:
    """A mesh of many members who stay away must not take the disk from everybody else."""
    async with serving(tmp_path, limits={"mesh_rows": 4, "reserved_rows": 1}) as broker:
        owner, *others = await wire.mesh_of(broker.url, 4)
        stranger, recipient = await wire.mesh_of(broker.url, 2)
        async with wire.member(broker.url, owner) as sending:
            for number in range(4):
                await sending.submit(owner.envelope(others[number % 2].id))
            await sending.submit(owner.envelope(others[2].id))
            refused = await refusal_of(sending, owner.envelope(others[2].id))
            async with wire.member(broker.url, stranger) as elsewhere:
                await elsewhere.submit(stranger.envelope(recipient.id))
            async with wire.member(broker.url, others[0]) as receiving:
                await receiving.acknowledge(*await receiving.deliveries(2))
                await receiving.quiet(messages.Push)
            await sending.submit(owner.envelope(others[2].id))

    assert refused.code == "mailbox_full"
    assert refused.retry_after_ms is not None


async def test_a_member_that_fills_the_mailboxes_of_those_who_are_away_silences_nobody_else(tmp_path: Path) -> None:
    """Otherwise one member, revoked or not, could stop a mesh until they return."""
    async with serving(tmp_path, limits={"mesh_rows": 4}) as broker:
        owner, mallory, present, *away = await wire.mesh_of(broker.url, 5)
        async with wire.member(broker.url, mallory) as flooding:
            for number in range(4):
                await flooding.submit(mallory.envelope(away[number % 2].id))
        async with wire.member(broker.url, present) as receiving, wire.member(broker.url, owner) as sending:
            for _ in range(100):
                await sending.submit(owner.envelope(present.id))
                await receiving.acknowledge(*await receiving.deliveries(1))


async def test_too_many_messages_are_refused_with_the_time_to_wait(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"messages_burst": 5, "messages_per_second": 1}) as broker:
        owner, other = await wire.mesh_of(broker.url, 2)
        async with wire.member(broker.url, owner) as sending:
            for _ in range(5):
                await sending.submit(owner.envelope(other.id))
            refused = await refusal_of(sending, owner.envelope(other.id))

    assert refused.code == "rate_limited"
    assert 0 < (refused.retry_after_ms or 0) <= 1_100


@pytest.mark.parametrize(
    "poison",
    [
        b'"x":"\xff\xfe"',
        b'"x":' + b"[" * 400 + b"]" * 400,
        b'"x":{"y":1}',
    ],
    ids=["not-utf8", "deep", "nested"],
)
async def test_field_that_nobody_knows_cannot_poison_a_mailbox(broker: Broker, poison: bytes) -> None:
    """Unknown fields are not decoded here but travel on: what could break the recipient's link ends the sender's."""
    owner, other = await wire.mesh_of(broker.url, 2)
    frame = codec.encode_message(owner.envelope(other.id))[:-1] + b"," + poison + b"}"

    async with wire.dial(broker.url, wire.hello(owner)) as sending:
        try:
            await sending.send(frame)
            closing = await sending.ended()
        except UnicodeDecodeError:
            pytest.fail("the client itself could not send this")

    assert closing is not None
    assert closing.code == "bad_frame"
    async with wire.member(broker.url, other) as receiving:
        assert await receiving.quiet(messages.Push)


async def test_flat_field_that_nobody_knows_is_ignored(broker: Broker) -> None:
    """A later version may add fields."""
    owner, other = await wire.mesh_of(broker.url, 2)
    letter = owner.envelope(other.id)
    frame = msgspec.json.encode({**msgspec.json.decode(codec.encode_message(letter)), "later": 7})

    async with wire.member(broker.url, owner) as sending, wire.member(broker.url, other) as receiving:
        await sending.send(frame)
        [delivery] = await receiving.deliveries(1)

    assert bytes(delivery.e) == frame


async def test_accepted_names_the_row_of_the_audit_log(broker: Broker) -> None:
    """The receipt of `accepted` is a row of the chain that its mesh can fetch and verify."""
    owner, other = await wire.mesh_of(broker.url, 2)
    async with wire.member(broker.url, owner) as sending:
        row = await sending.submit(owner.envelope(other.id))
        audit = await sending.request(messages.Audit, messages.GetAudit, n=row["n"])

    assert statements.digest("audit", audit.rows[0].encode()) == row["h"]
    assert audit.cp is not None
    body = statements.open_statement(audit.cp, "audit-cp", broker.id)
    assert body["n"] == audit.n + len(audit.rows)
    assert statements.digest("audit", audit.rows[-1].encode()) == body["head"]


async def test_many_envelopes_in_a_row_share_statements(broker: Broker) -> None:
    """One signature covers up to 64 envelopes of one sender, and every one is answered exactly once."""
    owner, other = await wire.mesh_of(broker.url, 2)
    letters = [owner.envelope(other.id) for _ in range(150)]

    async with wire.member(broker.url, owner) as sending:
        for letter in letters:
            await sending.send(letter)
        groups = []
        while sum(map(len, groups)) < len(letters):
            groups.append(await sending.accepted())

    assert sorted(row["id"] for group in groups for row in group) == sorted(letter.id for letter in letters)
    assert len(groups) < len(letters)
    assert max(map(len, groups)) <= 64
