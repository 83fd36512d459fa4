"""What the journal's statements about channels promise; on a private database in memory."""

import sqlite3
from typing import Any

from claudemesh.crypto.statements import Statement
from claudemesh.peer.journal import channels, epochs, inbox, posts, timeline
from claudemesh.peer.journal.epochs import ParkedDraft
from claudemesh.peer.journal.inbox import InboxDraft
from claudemesh.peer.journal.posts import PostDraft, SealedPost
from claudemesh.protocol.delivery import Claim, Outcome, Stage, Witness
from claudemesh.protocol.epochs import HeldEpoch
from claudemesh.types import ChannelId, Digest, MeshId, MessageId, PeerId, UnixMillis
from tests.channel_members import team

MESH = MeshId("11" * 32)
BOB, CAROL = PeerId("b0" * 32), PeerId("c0" * 32)
OPS, DEV = ChannelId("0a" * 16), ChannelId("0b" * 16)
EPOCH, NEXT_EPOCH = Digest("e1" * 32), Digest("e2" * 32)
NOW = UnixMillis(1_000_000)
STATEMENT = Statement("{}", "k" * 64, "s" * 128)


def message(number: int) -> MessageId:
    return MessageId(f"{number:032x}")


def received(number: int, channel: ChannelId | None = OPS, **changes: Any) -> InboxDraft:
    usual = InboxDraft(message(number), BOB, None, None, b"f", b"s", "att", NOW, NOW, channel=channel)
    return usual._replace(**changes)


def post(journal: sqlite3.Connection, number: int, *, epoch: Digest = EPOCH, to: tuple[PeerId, ...] = (BOB,)) -> int:
    """A post of ours that is sealed; returns its row number."""
    posts.enqueue(journal, MESH, PostDraft(message(number), OPS, "text/plain", b"text", NOW))
    row = posts.find(journal, MESH, message(number))
    assert row is not None
    posts.mark_sealed(journal, MESH, [(row.message_id, SealedPost(row.id, "att", number, epoch, b"{}"), to)])
    return row.id


def state_of(journal: sqlite3.Connection, number: int) -> str:
    row = posts.find(journal, MESH, message(number))
    assert row is not None
    return row.state


def test_history_keeps_the_newest_of_each_channel_and_every_direct_message(journal: sqlite3.Connection) -> None:
    """A thousand of a busy channel push out its own older ones, and nothing else."""
    for number in range(12):
        inbox.add(journal, MESH, received(number))
    inbox.add(journal, MESH, received(20, DEV))
    inbox.add(journal, MESH, received(21, None, received_at=UnixMillis(1)))
    inbox.add(journal, MESH, received(22, DEV, received_at=UnixMillis(1)))

    channels.trim_history(journal, MESH, keep=10, before=UnixMillis(2))

    assert [row.message_id for row in inbox.load_of_channel(journal, MESH, OPS, 100)] == [
        message(number) for number in range(2, 12)
    ]
    assert [row.message_id for row in inbox.load_of_channel(journal, MESH, DEV, 100)] == [message(20)]
    assert inbox.holds(journal, MESH, BOB, message(21))


def test_a_receipt_counts_for_who_was_in_the_channel_when_it_was_posted(journal: sqlite3.Connection) -> None:
    """An outsider states nothing about it; the broker states its part about the channel."""
    post(journal, 1, to=(BOB,))
    stated = [
        timeline.record(journal, MESH, message(1), who, claim, at=NOW, recorded_at=NOW, signer="x")
        for who, claim in (
            (OPS, Claim(Stage.ACCEPTED, Witness.BROKER)),
            (BOB, Claim(Stage.DELIVERED, Witness.PEER)),
            (CAROL, Claim(Stage.DELIVERED, Witness.PEER)),
            (DEV, Claim(Stage.ACCEPTED, Witness.BROKER)),
        )
    ]

    assert [one is not None for one in stated] == [True, True, False, False]
    assert posts.load_recipients(journal, MESH, message(1)) == {BOB: Claim(Stage.DELIVERED, Witness.PEER)}
    row = posts.find(journal, MESH, message(1))
    assert row is not None
    assert row.shown == Claim(Stage.ACCEPTED, Witness.BROKER)


def test_what_a_broker_lost_goes_out_again_only_to_those_who_were_there(journal: sqlite3.Connection) -> None:
    """Not under a newer epoch, which newcomers hold; and not when somebody has it."""
    rows = [post(journal, 1), post(journal, 2, epoch=NEXT_EPOCH), post(journal, 3)]
    posts.settle(journal, rows, Outcome.ACCEPTED, NOW)
    delivered = Claim(Stage.DELIVERED, Witness.PEER)
    timeline.record(journal, MESH, message(3), BOB, delivered, at=NOW, recorded_at=NOW, signer="x")

    posts.requeue_undelivered(journal, MESH, [EPOCH])

    assert [state_of(journal, number) for number in (1, 2, 3)] == ["queued", "accepted", "accepted"]


def test_an_epoch_of_our_own_is_not_read_from_the_journal_before_it_was_published(journal: sqlite3.Connection) -> None:
    """What nobody else has is never sent under; a delivery of it, or the broker's answer, publishes it."""
    _, (alice, _) = team("alice", "bob")
    held = alice.rotate()
    stored = alice.broker.epochs[-1]
    slots = tuple(stored.slots.values())
    frame = epochs.write_publication(Digest("a7" * 32), slots)
    epochs.save(journal, MESH, held, stored.statement, frame)
    before = epochs.load_held(journal, MESH), epochs.load_unpublished(journal, MESH)

    epochs.mark_published(journal, MESH, held.id)

    assert before[0] == []
    assert [(one.epoch, one.slots) for one in before[1]] == [(held, slots)]
    assert epochs.load_held(journal, MESH) == [held]
    assert epochs.load_unpublished(journal, MESH) == []


def test_an_epoch_that_was_told_gains_its_signature_and_never_loses_it(journal: sqlite3.Connection) -> None:
    """Whatever comes first: the record in its mailbox row, or the secret by way of a member."""
    _, (alice, _) = team("alice", "bob")
    held = alice.rotate()
    statement = alice.broker.epochs[-1].statement
    told = HeldEpoch(held.record.__class__(**{**_fields(held), "session": None}), held.secret, held.received_at)
    epochs.save(journal, MESH, told, None, None)
    first = epochs.load_held(journal, MESH)[0].is_vouched
    epochs.save(journal, MESH, held, statement, None)
    epochs.save(journal, MESH, told, None, None)

    assert not first
    assert epochs.load_held(journal, MESH)[0].is_vouched


def _fields(held: HeldEpoch) -> dict[str, Any]:
    return {name: getattr(held.record, name) for name in held.record.__dataclass_fields__}


def test_parked_posts_come_back_with_their_epoch_in_their_order(journal: sqlite3.Connection) -> None:
    """And each is kept once, however often the broker pushes it."""
    for number, epoch in ((1, EPOCH), (2, NEXT_EPOCH), (3, EPOCH), (1, EPOCH)):
        epochs.park(journal, MESH, ParkedDraft(epoch, BOB, message(number), STATEMENT, b"{}", NOW), NOW)

    waiting = epochs.load_parked(journal, MESH, [EPOCH])
    counted = epochs.count_parked(journal, MESH)
    epochs.unpark(journal, [one.id for one in waiting])

    assert [one.message_id for one in waiting] == [message(1), message(3)]
    assert counted == {BOB: 3}
    assert epochs.parked_epochs(journal, MESH) == {NEXT_EPOCH}


def test_a_secret_is_given_once_to_each_peer(journal: sqlite3.Connection) -> None:
    """The answer to a question that is repeated is in the first answer."""
    given = [epochs.note_given(journal, MESH, peer, EPOCH, NOW) for peer in (BOB, BOB, CAROL)]

    assert given == [True, False, True]
