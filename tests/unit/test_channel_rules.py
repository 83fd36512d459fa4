"""Attacks on channels by the broker, by members and by those who were removed (docs/threat-model.md)."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from claudemesh.crypto import epochs
from claudemesh.crypto.epochs import make_epoch, open_slot
from claudemesh.errors import Refused
from claudemesh.protocol.epoch_rules import slot_holders
from claudemesh.protocol.epochs import rotate
from claudemesh.protocol.heads import SignedHead
from claudemesh.protocol.limits import DAY_MS, EPOCH_MAX_MS
from claudemesh.protocol.roster import EVERYONE, GENERAL, Roster
from claudemesh.types import BoxId
from tests.channel_forgeries import (
    DEPLOYS,
    code_of,
    draft,
    held,
    make,
    sorted_members,
    stored,
)
from tests.channel_members import Member, MemoryBroker, StoredEpoch, team

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


def test_nothing_crosses_from_another_mesh_of_the_same_device() -> None:
    """A17: the same peer key in two meshes; records and attestations name the mesh."""
    broker, (alice, bob) = team("alice", "bob")
    elsewhere, _ = team("owner", seed=7)
    twin = Member("alice", MemoryBroker(elsewhere.clock, elsewhere.key), Random(8))
    twin.sign = alice.sign
    twin.found()
    broker.attestations[twin.attestation.digest] = twin.attestation

    post = twin.post(GENERAL, "from elsewhere")
    made = make(twin, bob)

    assert code_of(bob.take_epoch, stored(twin, made, bob)) == "epoch"
    assert code_of(broker.put_epoch, made.statement, twin.attestation, made.slots) == "epoch"
    assert code_of(bob.take_post, post) == "att"


# A malicious member


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


def test_broker_refuses_an_epoch_of_another_roster() -> None:
    broker, (alice, bob) = team("alice", "bob")
    for changes in ({"rh": "ab" * 32}, {"rs": 99}):
        made = make(alice, *sorted_members(alice, bob), **changes)

        assert code_of(broker.put_epoch, made.statement, alice.attestation, made.slots) == "epoch"


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
