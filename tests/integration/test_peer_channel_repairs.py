"""Epochs that go wrong: bad slots, rotators that die, senders that lag, members that ask for what is not theirs."""

import asyncio
from pathlib import Path

from claudemesh.crypto import statements
from claudemesh.crypto.primitives import box_key
from claudemesh.errors import Refused
from claudemesh.peer import Peer, channel_contents, contents
from claudemesh.peer.contents import Nack
from claudemesh.peer.journal import epochs as epoch_rows
from claudemesh.peer.journal import outbox
from claudemesh.peer.journal.outbox import Draft
from claudemesh.peer.line import Line
from claudemesh.peer.repairing import topic_of
from claudemesh.peer.shared_history import MAX_KEPT_PER_SHARER
from claudemesh.protocol import epochs
from claudemesh.protocol.epoch_rules import slot_holders
from claudemesh.protocol.epochs import HeldEpoch
from claudemesh.protocol.messages import Ok, PutEpoch
from claudemesh.protocol.roster import EVERYONE
from claudemesh.types import BoxId, Digest, MessageId, PeerId
from tests.teams import Valve, eventually, history_of, knows_channel, of_type, silent, take, team


async def rotate_badly(peer: Peer, victim: PeerId) -> HeldEpoch:
    """What a cheating rotator does: a signed epoch for all, with a slot for one of them that does not open."""
    parts = peer._parts
    roster, head, cards = parts.membership.roster, parts.membership.head, parts.cards
    assert head is not None
    line = await parts.uplink.line()
    holders = slot_holders(roster, EVERYONE, roster.seq)
    await cards.refresh(line, holders)
    boxes = {holder: cards.box_of(holder) for holder in holders}
    boxes[victim] = BoxId(box_key(b"\x05" * 32).public)
    session = parts.sessions.main
    now, entropy = parts.runtime.now(), parts.runtime.entropy(64)
    made = epochs.rotate(roster, head, EVERYONE, peer.id, session.keys, boxes, now, entropy)
    held = HeldEpoch(made.record, made.secret, now)
    await parts.journal.write(lambda c: epoch_rows.save(c, peer.mesh, held, made.statement, None))
    parts.channels.epochs.hold(held)
    put = PutEpoch(rid=0, st=made.statement, att=session.attestation.digest, slots=list(made.slots))
    await publish(line, put)
    return held


async def publish(line: Line, put: PutEpoch) -> None:
    """Publish an epoch as soon as the broker takes one of this peer again."""
    while True:
        try:
            await line.request(put, Ok)
        except Refused as error:
            if error.retry_after_ms is None:
                raise
            await asyncio.sleep(error.retry_after_ms / 1_000)
        else:
            return


async def whisper(peer: Peer, to: PeerId, content_type: str, *bodies: bytes) -> None:
    """Send messages of the protocol's own kind that no honest program would send."""
    parts = peer._parts
    drafts = [
        Draft(MessageId(parts.runtime.entropy(16).hex()), to, content_type, body, parts.runtime.now())
        for body in bodies
    ]
    await parts.journal.write(lambda connection: outbox.enqueue(connection, peer.mesh, drafts))
    parts.outgoing.wake()


def slots_sent(peer: Peer, to: PeerId) -> int:
    """How many `cm/slot` a peer has queued for another."""
    database = peer._parts.journal._connections[0]
    query = "SELECT count(*) FROM outbox WHERE peer = ? AND content_type = ?"
    count: int = database.execute(query, (to, channel_contents.SLOT)).fetchone()[0]
    return count


async def refused_at(peer: Peer, code: str) -> None:
    """Wait until a peer has refused something with a code."""

    async def count() -> int:
        return sum(row.envelopes for row in await peer.quarantine() if row.code == code)

    for _ in range(500):
        if await count():
            return
        await silent(peer, 0.02)
    raise AssertionError(f"{code}: never refused")


async def test_a_slot_that_does_not_open_is_repaired_by_its_rotator(tmp_path: Path) -> None:
    """The post waits in the journal, acknowledged; the secret is asked for once, and is then as good as delivered."""
    async with team(tmp_path, "alice", "bob") as (_, (alice, bob)):
        bad = await rotate_badly(alice, bob.id)
        await alice.send("#general", "can you read this?")
        (received,) = await take(bob, 1)

        assert received.text == "can you read this?"
        usable = bob._parts.channels.epochs.usable(EVERYONE)
        assert usable is not None
        assert usable.id == bad.id
        assert slots_sent(alice, bob.id) == 1
        assert [row.code for row in await bob.quarantine()] == ["stale_key"]


async def test_a_peer_without_a_slot_does_not_wait_in_order_to_write(tmp_path: Path) -> None:
    """It makes an epoch of its own, which everybody reads."""
    async with team(tmp_path, "alice", "bob") as (made, (alice, bob)):
        await rotate_badly(alice, bob.id)
        await made.close("alice")
        await bob.send("#general", "I cannot read you")
        alice = await made.open("alice")

        assert [one.text for one in await take(alice, 1)] == ["I cannot read you"]


async def test_a_secret_is_handed_on_once_for_each_epoch_and_peer(tmp_path: Path) -> None:
    """A hundred nacks, some of them about epochs that nobody has, cost one answer."""
    async with team(tmp_path, "alice", "bob") as (_, (alice, bob)):
        await alice.send("#general", "hello")
        (one,) = await take(bob, 1)
        held = bob._parts.channels.epochs.usable(EVERYONE)
        assert held is not None
        real = contents.write_nack(Nack(topic_of(held.id), "no_epoch_key", held.id))
        foreign = contents.write_nack(Nack(MessageId("ab" * 16), "no_epoch_key", Digest("ab" * 32)))
        await whisper(bob, alice.id, contents.NACK, *[real] * 50, *[foreign] * 50)
        await whisper(bob, alice.id, contents.TEXT, b"that was all")
        await take(alice, 1)

        assert slots_sent(alice, bob.id) == 1
        assert one.text == "hello"


async def test_who_was_not_entitled_to_a_secret_does_not_get_it(tmp_path: Path) -> None:
    """A newcomer asks for the epoch before its time, by its true id."""
    async with team(tmp_path, "alice", "bob") as (made, (alice, bob)):
        await alice.send("#general", "before")
        await take(bob, 1)
        held = alice._parts.channels.epochs.usable(EVERYONE)
        assert held is not None
        (carol,) = await made.join("carol")
        await whisper(
            carol, alice.id, contents.NACK, contents.write_nack(Nack(topic_of(held.id), "no_epoch_key", held.id))
        )
        await refused_at(alice, "not_entitled")

        assert slots_sent(alice, carol.id) == 0
        assert carol._parts.channels.epochs.find(held.id) is None


async def test_a_secret_that_nobody_asked_for_is_not_taken(tmp_path: Path) -> None:
    """Otherwise anybody could have others read under epochs of its own making."""
    async with team(tmp_path, "alice", "bob") as (_, (alice, bob)):
        await alice.send("#general", "hello")
        await take(bob, 1)
        held = alice._parts.channels.epochs.usable(EVERYONE)
        assert held is not None
        body = {"b": held.record.body, "ep": held.id, "k": held.secret.hex()}
        await whisper(alice, bob.id, channel_contents.SLOT, statements.encode(body))

        await refused_at(bob, "not_entitled")


async def test_history_that_comes_before_its_epoch_is_read_once_that_is_here(tmp_path: Path) -> None:
    """The newcomer's slot was bad: it keeps what was shared, also over a restart, and asks the sharer for the epoch."""
    async with team(tmp_path, "alice", "bob") as (made, (alice, bob)):
        await alice.send("#general", "one")
        await take(bob, 1)
        (carol,) = await made.join("carol")
        await made.close("carol")
        valve = Valve()
        valve.loses_out = of_type("send")
        carol = await made.open("carol", valve.connect)
        held = await rotate_badly(alice, carol.id)

        [shared] = await alice.share_history("#general", "carol")
        await eventually(lambda: bool(carol._parts.channels.shared._awaited), "carol keeps what she cannot open")
        assert carol._parts.channels.epochs.find(held.id) is None
        assert await carol.channel_history("#general") == []
        await made.close("carol")
        carol = await made.open("carol")
        await eventually(lambda: carol._parts.channels.epochs.find(held.id) is not None, "alice hands over the epoch")
        history = await history_of(carol, "#general")

        assert [(one.text, one.shared_by) for one in history] == [("one", "alice.box")]
        assert not carol._parts.channels.shared._awaited
        assert (shared.messages, shared.epochs) == (1, 1)
        assert slots_sent(alice, carol.id) == 1


async def test_history_that_nothing_opens_is_kept_within_a_limit(tmp_path: Path) -> None:
    """A member that shares nonsense fills no disk, and is asked for no more than what is kept."""
    async with team(tmp_path, "alice", "bob") as (_, (alice, bob)):
        await alice.send("#general", "one")
        await take(bob, 1)
        held = alice._parts.channels.epochs.usable(EVERYONE)
        assert held is not None
        bodies = [
            statements.encode({"old": held.record.body, "new": f"{number:032x}" + "0" * 32, "n": "AA", "ct": "AA"})
            for number in range(MAX_KEPT_PER_SHARER + 20)
        ]

        await whisper(alice, bob.id, channel_contents.HISTORY, *bodies)
        await alice.send("bob", "the last one")

        assert [one.text for one in await take(bob, 1)] == ["the last one"]
        database = bob._parts.journal._connections[0]
        kept = database.execute("SELECT count(*) FROM kept_history").fetchone()[0]
        asked = database.execute("SELECT count(*) FROM nacks_sent WHERE sender = ?", (alice.id,)).fetchone()[0]
        assert kept == asked == MAX_KEPT_PER_SHARER


async def test_a_rotator_that_dies_before_it_published_leaves_nothing(tmp_path: Path) -> None:
    """Its epoch is in its own journal alone; the others rotate, and after its return all converge."""
    async with team(tmp_path, "alice", "bob") as (made, (alice, bob)):
        await made.close("alice")
        valve = Valve()
        valve.loses_out = of_type("put_epoch")
        alice = await made.open("alice", valve.connect)
        await alice.send("#general", "lost for now")
        await eventually(lambda: valve.lost > 0, "the rotation")
        assert alice._parts.channels.epochs.usable(EVERYONE) is None
        await made.close("alice")
        await bob.send("#general", "meanwhile")
        alice = await made.open("alice")

        assert [one.text for one in await take(alice, 1)] == ["meanwhile"]
        assert [one.text for one in await take(bob, 1)] == ["lost for now"]
        await converged(alice, bob)


async def test_a_rotator_that_dies_before_the_answer_uses_what_the_broker_stored(tmp_path: Path) -> None:
    """Whether the broker has it is unknown, so it is published again as it was; recipients drop the copy."""
    async with team(tmp_path, "alice", "bob") as (made, (alice, bob)):
        await made.close("alice")
        valve = Valve()
        valve.cuts_after = of_type("put_epoch")
        alice = await made.open("alice", valve.connect)
        await alice.send("#general", "twice published")
        await eventually(lambda: valve.lost > 0, "the rotation")
        await made.close("alice")
        alice = await made.open("alice")

        assert [one.text for one in await take(bob, 1)] == ["twice published"]
        await converged(alice, bob)


async def test_a_sender_that_lags_seals_again_under_the_same_id(tmp_path: Path) -> None:
    """The broker refuses what was sealed before somebody left; who left gets neither copy."""
    async with team(tmp_path, "alice", "bob", "carol") as (made, (alice, bob, carol)):
        await alice.create_channel("@ops")
        for name, peer in (("bob", bob), ("carol", carol)):
            await alice.add_to_channel("@ops", name)
            await knows_channel(peer, "@ops")
        await alice.send("@ops", "all here")
        for peer in (bob, carol):
            await take(peer, 1)
        await made.close("alice")
        valve = Valve()
        alice = await made.open("alice", valve.connect)
        valve.loses_in = is_announcement
        seq = alice._parts.membership.roster.seq
        await carol.leave_channel("@ops")
        await eventually(lambda: valve.lost > 0, "the announcement that alice does not get")
        assert alice._parts.membership.roster.seq == seq
        sent = await alice.send("@ops", "without carol")
        (received,) = await take(bob, 1)

        assert (received.id, received.text, received.is_stale) == (sent.id, "without carol", False)
        await silent(carol)


def is_announcement(frame: bytes) -> bool:
    return of_type("log")(frame) and b'"rid"' not in frame


async def converged(*peers: Peer) -> None:
    """Require that after a post of each, all send under one epoch."""
    for peer in peers:
        await peer.send("#general", "and now")
    for peer in peers:
        await take(peer, len(peers) - 1)
    usable = [peer._parts.channels.epochs.usable(EVERYONE) for peer in peers]
    assert len({held.id for held in usable if held is not None}) == 1
