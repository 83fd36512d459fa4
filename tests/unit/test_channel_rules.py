"""Attacks on channels by the broker, by members and by those who were removed (docs/threat-model.md)."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from claudemesh.crypto import channel_envelope, epochs
from claudemesh.crypto.epochs import channel_key, make_epoch, open_slot
from claudemesh.errors import ClaudemeshError, Refused
from claudemesh.protocol.epoch_rules import slot_holders
from claudemesh.protocol.epochs import rotate
from claudemesh.protocol.heads import SignedHead
from claudemesh.protocol.limits import CLOCK_SKEW_MS, DAY_MS, EPOCH_MAX_MS, QUEUE_LIFETIME_MS
from claudemesh.protocol.roster import EVERYONE, GENERAL, Roster
from claudemesh.types import BoxId
from tests.channel_forgeries import (
    DEPLOYS,
    altered,
    code_of,
    draft,
    held,
    make,
    make_private_channel,
    sorted_members,
    stored,
)
from tests.channel_members import Member, StoredEpoch, team

# The broker, and outsiders


def test_epoch_of_an_outsider_is_refused() -> None:
    """A10: a broker can make keys and sign with them; no roster names them."""
    broker, (alice, bob) = team("alice", "bob")
    ghost = Member("ghost", broker, Random(1))
    ghost.roster, ghost.head = alice.roster, alice.head
    ghost.open_session()

    made = make(ghost, bob)

    assert code_of(bob.take_epoch, stored(ghost, made, bob)) == "epoch_author"
    assert bob.usable(GENERAL) is None


def test_altered_slot_does_not_open() -> None:
    """A10: neither flipped, nor of another member, nor under the name of another key."""
    _, (alice, bob, carol) = team("alice", "bob", "carol")
    made = make(alice, bob, carol)
    of_bob, of_carol = made.slots
    key = bob.box_secrets
    flipped = of_bob[:-4] + ("AAAA" if of_bob[-4:] != "AAAA" else "BBBB")

    assert code_of(open_slot, flipped, made.record, key) == "box_open"
    assert code_of(open_slot, of_bob[:8] + of_carol[8:], made.record, key) == "box_open"
    assert code_of(open_slot, of_carol, made.record, key) == "stale_key"
    assert code_of(open_slot, of_bob[:-1], made.record, key) == "no_slot"
    assert code_of(open_slot, of_bob[:8] + "=" * 64, made.record, key) == "b64"
    assert open_slot(of_bob, made.record, key) == made.secret


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"mesh": "ab" * 32}, "epoch_author"),
        ({"by": "ab" * 32}, "epoch_author"),
        ({"chan": GENERAL}, "epoch"),
        ({"chan": DEPLOYS}, "epoch"),
        ({"rh": "ab" * 32}, "unproven_roster_claim"),
        ({"rs": 99}, "unproven_roster_claim"),
        ({"at": 1}, "att_expired"),
    ],
    ids=str,
)
def test_record_that_does_not_fit_the_roster_is_refused(changes: dict[str, Any], code: str) -> None:
    """A false head is the word of one member: the epoch is dropped and nobody freezes."""
    _, (alice, bob) = team("alice", "bob")

    made = make(alice, bob, **changes)

    assert code_of(bob.take_epoch, stored(alice, made, bob)) == code
    assert bob.frozen is None


def test_post_is_not_taken_for_another_channel_or_as_plaintext() -> None:
    """A14, A16: channels of one epoch have different keys; what does not open is refused."""
    broker, (alice, bob) = team("alice", "bob")
    alice.append("chan", chan=DEPLOYS, kind="open")
    post = alice.post(DEPLOYS, "for deploys")
    bob.sync()
    bob.take_epoch(broker.epochs[-1])

    assert code_of(bob.take_post, altered(post, chan=GENERAL)) == "secretbox_open"
    assert code_of(bob.take_post, altered(post, chan="77" * 16)) == "misdirected"
    assert code_of(bob.take_post, altered(post, ct="aGVsbG8")) == "secretbox_open"
    assert code_of(bob.take_post, altered(post, nonce="")) == "frame"
    assert bob.take_post(altered(post, prio="now", id="ff" * 16, sender="ff" * 32)).opened.header["prio"] == "next"


def test_post_is_received_once_and_a_dropped_one_is_noticed() -> None:
    """A12, A13: a newcomer to the stream starts where it comes in."""
    broker, (alice, bob) = team("alice", "bob")
    posts = [alice.post(GENERAL, f"{number}") for number in range(5)]
    bob.take_epoch(broker.epochs[0])

    bob.take_post(posts[1])
    bob.take_post(posts[4])

    assert sum(bob.gaps.values()) == 2
    assert code_of(bob.take_post, posts[4]) == "replay"
    bob.take_post(posts[2])
    assert bob.texts == ["1", "4", "2"]


@pytest.mark.parametrize(
    ("later", "changes", "code"),
    [
        (QUEUE_LIFETIME_MS + 1, {}, "time"),
        (0, {"ts": 1}, "att_expired"),
        (0, {"exp": 1}, "time"),
        (0, {"nb": 2_000_000_000_000}, "too_early"),
        (-CLOCK_SKEW_MS - 1, {}, "time"),
    ],
)
def test_post_outside_its_time_is_refused(later: int, changes: dict[str, Any], code: str) -> None:
    _, (alice, bob) = team("alice", "bob")
    epoch = alice.rotate()
    bob.drain()
    post = alice.seal(GENERAL, "late", epoch, **changes)

    alice.clock.advance(later)

    assert code_of(bob.take_post, post) == code


# A malicious member


def test_member_cannot_write_as_another() -> None:
    """A21: everybody holds the key of the channel; the signature inside says who wrote."""
    _, (alice, bob, carol) = team("alice", "bob", "carol")
    alice.post(GENERAL, "x")
    bob.drain()
    carol.drain()
    epoch = bob.usable(GENERAL)
    assert epoch is not None
    as_alice = {"from": alice.id, "sess": alice.session.id}

    forged = bob.seal(GENERAL, "I am Alice", epoch, **as_alice)

    assert code_of(carol.take_post, forged) == "misdirected"
    assert code_of(carol.take_post, altered(forged, att=alice.attestation.digest)) == "bad_sig"


def test_post_names_its_own_channel_and_epoch_inside() -> None:
    _, (alice, bob) = team("alice", "bob")
    alice.append("chan", chan=DEPLOYS, kind="open")
    epoch = alice.rotate()
    bob.sync()
    bob.drain()

    for changes in ({"chan": DEPLOYS}, {"ep": "ab" * 32}, {"mesh": "ab" * 32}):
        header = alice.header(GENERAL, epoch) | changes
        sealed = channel_envelope.seal(header, b"x", alice.session, channel_key(epoch.secret, GENERAL), bytes(24))
        post = altered(alice.enclose(header, sealed, GENERAL), ep=epoch.id)
        assert code_of(bob.take_post, post) == "misdirected"


def test_direct_message_frame_is_no_channel_message() -> None:
    """A header of another kind, or signed under another context, does not pass."""
    _, (alice, bob) = team("alice", "bob")
    epoch = alice.rotate()
    bob.drain()
    header = alice.header(GENERAL, epoch)

    with pytest.raises(ClaudemeshError, match="field_type: k"):
        alice.seal(GENERAL, "x", epoch, k="dm")
    frame = channel_envelope.seal(header, b"x", alice.session, channel_key(epoch.secret, GENERAL), bytes(24))
    opened = channel_envelope.open_sealed(frame, alice.attestation, channel_key(epoch.secret, GENERAL))

    channel_envelope.verify_frame(opened.frame, opened.signature, alice.attestation)
    assert code_of(channel_envelope.verify_frame, opened.frame, opened.signature, bob.attestation) == "bad_sig"


def test_rotator_cannot_give_members_different_secrets() -> None:
    """A24: everybody who accepts an epoch holds the same secret; the victim makes a new one."""
    broker, (alice, bob, carol) = team("alice", "bob", "carol")
    seed = bytes(range(32, 64))
    made = make(alice, bob, entropy=bytes(32) + seed)
    other = make(alice, carol, entropy=b"\1" * 32 + seed)
    mixed = StoredEpoch(made.statement, alice.attestation, {bob.id: made.slots[0], carol.id: other.slots[0]})

    bob.take_epoch(mixed)

    assert code_of(carol.take_epoch, mixed) == "epoch_commit"
    assert code_of(carol.take_epoch, StoredEpoch(made.statement, alice.attestation, {})) == "no_slot"
    carol.post(GENERAL, "still works")
    for member in (alice, bob):
        member.drain()
        assert member.texts == ["still works"]
    assert len(broker.epochs) == 1


def test_useless_box_key_of_one_member_does_not_stop_the_rotation() -> None:
    """A member chooses its own key; with a low-order one it locks out nobody but itself."""
    _, (alice, bob) = team("alice", "bob")
    boxes = [BoxId("00" * 32), BoxId("01" + "00" * 31), BoxId(bob.boxes[0].public)]

    made = make_epoch(draft(alice), alice.session, boxes, bytes(range(64)))

    assert open_slot(made.slots[2], made.record, bob.box_secrets) == made.secret
    assert {len(slot) for slot in made.slots} == {epochs.SLOT_CHARACTERS}
    for slot in made.slots[:2]:
        assert code_of(open_slot, slot, made.record, {BoxId(slot[:8] + "00" * 28): bytes(32)}) == "box_open"


def test_session_without_the_capability_neither_posts_nor_rotates() -> None:
    """A28: every recipient enforces it, whatever the broker lets through."""
    broker, (alice, bob) = team("alice", "bob", refuses_stale=False)
    alice.open_session(("dm",))

    post = alice.post(GENERAL, "x")

    assert code_of(bob.take_epoch, broker.epochs[-1]) == "cap"
    bob.book.hold(next(iter(alice.book.of_scope(EVERYONE))))
    assert code_of(bob.take_post, post) == "cap"


def test_session_cannot_attest_itself() -> None:
    """A28: a record is signed by an attested session of its author, not by any key."""
    _, (alice, bob, carol) = team("alice", "bob", "carol")
    made = make(bob, carol)

    assert code_of(carol.take_epoch, StoredEpoch(made.statement, alice.attestation, {})) == "epoch_author"


def test_ended_session_is_neither_heard_nor_sent_under() -> None:
    """A thief of a session made an epoch; once the session is ended, nobody encrypts to it any more."""
    _, (alice, bob) = team("alice", "bob")
    post = alice.post(GENERAL, "before")
    bob.drain()
    assert bob.usable(GENERAL) is not None

    bob.dead.add(alice.session.id)

    assert bob.usable(GENERAL) is None
    assert bob.book.find(post.ep) is not None
    assert code_of(bob.take_post, alice.post(GENERAL, "after")) == "session_dead"


def test_date_in_the_future_does_not_stretch_an_epoch() -> None:
    _, (alice, bob) = team("alice", "bob")
    made = make(alice, bob, at=alice.clock.now + 6 * DAY_MS)
    bob.take_epoch(stored(alice, made, bob))
    assert bob.usable(GENERAL) is not None

    bob.clock.advance(EPOCH_MAX_MS)

    assert bob.usable(GENERAL) is None


def test_sender_must_have_seen_the_roster_of_its_epoch() -> None:
    broker, (alice, bob) = team("alice", "bob")
    old = alice.head
    assert old is not None
    bob.append("chan", chan=DEPLOYS, kind="group")
    alice.sync()
    epoch = alice.rotate()
    bob.drain()

    post = alice.seal(GENERAL, "x", epoch, rs=old.seq, rh=old.head, ra=old.at, rg=old.signature)

    assert code_of(bob.take_post, post) == "epoch_from_future"
    assert broker.refuses_stale


# The removed


def test_epoch_of_a_revoked_member_is_readable_but_never_sent_under() -> None:
    """A26: dated back to when it was in, the epoch may have been sent under by honest members of then."""
    _, (alice, bob, carol) = team("alice", "bob", "carol", refuses_stale=False)
    past = Roster.restore(alice.broker.entries)
    alice.append("revoke", who=bob.id, why="removed")
    carol.sync()
    head = SignedHead(past.mesh, past.seq, past.head, bob.clock.now, "")  # type: ignore[arg-type]
    boxes = {member.id: member.box for member in past.members.values()}

    made = rotate(past, head, EVERYONE, bob.id, bob.session, boxes, bob.clock.now, bytes(range(64)))
    holders = slot_holders(past, EVERYONE, past.seq)
    stored = StoredEpoch(made.statement, bob.attestation, dict(zip(holders, made.slots, strict=True)))

    assert carol.take_epoch(stored).id == made.record.id
    assert carol.usable(GENERAL) is None


def test_revoked_member_cannot_make_an_epoch_of_now() -> None:
    """A26: with the newest roster in hand, and the broker on its side."""
    _, (alice, bob, carol) = team("alice", "bob", "carol", refuses_stale=False)
    alice.append("revoke", who=bob.id, why="removed")
    bob.sync()
    carol.sync()

    made = make(bob, carol)

    assert code_of(carol.take_epoch, stored(bob, made, carol)) == "epoch_author"
    assert code_of(bob.rotate) == "epoch_author"
    assert code_of(carol.take_post, bob.seal(GENERAL, "still here?", held(made, bob.clock.now))) == "not_a_member"


def test_member_that_left_a_channel_is_not_heard_there() -> None:
    broker, (alice, bob, carol) = team("alice", "bob", "carol", refuses_stale=False)
    make_private_channel(alice, bob, carol)
    bob.post(DEPLOYS, "before")
    carol.drain()
    alice.append("chan_del", chan=DEPLOYS, who=bob.id)
    carol.sync()

    late = bob.post(DEPLOYS, "after", sync=False)

    assert code_of(carol.take_post, late) == "not_in_channel"
    assert broker.roster.channel_members(DEPLOYS) == {alice.id, carol.id}


def test_next_sender_rotates_when_the_revoker_has_gone() -> None:
    """A36: Alice revokes and goes offline at once; what Carol writes next, Bob cannot read."""
    broker, (alice, bob, carol) = team("alice", "bob", "carol")
    before = carol.post(GENERAL, "old")
    alice.append("revoke", who=bob.id, why="stolen")

    after = carol.post(GENERAL, "new", sync=False)

    assert after.ep != before.ep
    assert bob.id not in broker.epochs[-1].slots
    assert code_of(bob.take_epoch, broker.epochs[-1]) == "no_slot"
    assert code_of(bob.take_post, after) == "no_epoch_key"


def test_honest_broker_refuses_what_was_sealed_before_a_change() -> None:
    """The window in which a removed member could read is closed by `stale_roster`."""
    broker, (alice, bob, carol) = team("alice", "bob", "carol")
    epoch = carol.rotate()
    stale_post, stale_epoch = carol.seal(GENERAL, "old", epoch), make(carol, *sorted_members(alice, bob, carol))
    alice.append("revoke", who=bob.id, why="stolen")

    for act in (
        lambda: broker.take_post(stale_post),
        lambda: broker.put_epoch(stale_epoch.statement, carol.attestation, stale_epoch.slots),
    ):
        with pytest.raises(Refused, match="stale_roster"):
            act()


def test_broker_refuses_another_number_of_slots_than_members() -> None:
    broker, (alice, bob) = team("alice", "bob")
    made = make(alice, bob)

    assert code_of(broker.put_epoch, made.statement, alice.attestation, made.slots) == "no_slot"
    assert broker.epochs == []


def test_message_of_a_sender_that_lags_is_marked() -> None:
    """Delivered, but known to be readable by one who has left meanwhile."""
    _, (alice, bob, carol) = team("alice", "bob", "carol", refuses_stale=False)
    carol.rotate()
    alice.append("revoke", who=bob.id, why="removed")
    carol.post(GENERAL, "old", sync=False)
    carol.post(GENERAL, "new")

    alice.drain()

    assert [(checked.opened.body, checked.is_stale) for checked in alice.messages.values()] == [
        (b"old", True),
        (b"new", False),
    ]


# Races


def test_concurrent_rotators_are_both_read_and_then_agree() -> None:
    """A34: two epochs need no resolution; the next choice is the same for all."""
    _, (alice, bob, carol) = team("alice", "bob", "carol")
    first, second = alice.rotate(), bob.rotate()
    posts = alice.post(GENERAL, "from Alice", sync=False), bob.post(GENERAL, "from Bob", sync=False)

    for member in (alice, bob, carol):
        member.drain(shuffle=True)

    assert [post.ep for post in posts] == [first.id, second.id]
    assert sorted(carol.texts) == ["from Alice", "from Bob"]
    assert {member.usable(GENERAL).id for member in (alice, bob, carol)} == {min(first.id, second.id)}  # type: ignore[union-attr]


def test_join_that_races_a_revocation_ends_in_one_membership() -> None:
    """A35: the loser of the race signs again on the new head; the next epoch is for exactly the survivors."""
    broker, (alice, bob, carol) = team("alice", "bob", "carol")
    invite = alice.invite()
    dave = RacingMember("dave", broker, Random(5))
    dave.before_append = lambda: alice.append("revoke", who=bob.id, why="removed")

    dave.join(invite)
    carol.post(GENERAL, "x")

    assert dave.attempts == 2
    assert set(broker.epochs[-1].slots) == {alice.id, carol.id, dave.id}


class RacingMember(Member):
    """Between its check of the head and its append, something else happens once."""

    before_append: Callable[[], None]
    attempts = 0

    def _append_now(self, op: str, *cosigners: Any, **fields: Any) -> None:
        self.attempts += 1
        if self.attempts == 1:
            entry_of_old_head = self.roster.seq
            self.before_append()
            assert self.broker.roster.seq > entry_of_old_head
        super()._append_now(op, *cosigners, **fields)


def test_two_epochs_of_one_rotator_are_both_readable() -> None:
    """A rotator that crashed and starts again does no harm."""
    _, (alice, bob) = team("alice", "bob")
    alice.rotate()
    alice.book = type(alice.book)()
    post = alice.post(GENERAL, "again")

    bob.drain(shuffle=True)

    assert bob.texts == ["again"]
    assert len(bob.book.of_scope(EVERYONE)) == 2
    assert bob.take_epoch(bob.broker.epochs[0]).id != post.ep
