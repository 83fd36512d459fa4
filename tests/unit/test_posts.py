"""Channel messages as their readers check them, whoever wrote or delivered them (docs/spec/channels.md §5)."""

from random import Random
from typing import Any

import pytest

from claudemesh.crypto import channel_envelope
from claudemesh.crypto.epochs import channel_key
from claudemesh.errors import ClaudemeshError
from claudemesh.protocol.limits import CLOCK_SKEW_MS, QUEUE_LIFETIME_MS
from claudemesh.protocol.roster import GENERAL
from tests.channel_forgeries import (
    DEPLOYS,
    altered,
    code_of,
    make_private_channel,
)
from tests.channel_members import Member, team


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


def test_message_in_a_private_channel_is_under_its_own_epoch() -> None:
    """Under the epoch of the open channels all members of the mesh could read it, and the reader would not know."""
    _, (alice, bob, carol) = team("alice", "bob", "carol")
    make_private_channel(alice, bob)
    carol.sync()
    shared = alice.rotate()
    bob.drain()

    post = alice.seal(DEPLOYS, "for two", shared)

    assert code_of(bob.take_post, post) == "misdirected"


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


def test_reader_that_lags_fetches_the_roster_first() -> None:
    """A post in a channel, or of a sender, that it has not heard of; and one whose sender knows more."""
    broker, (alice, bob) = team("alice", "bob")
    carol = Member("carol", broker, Random(7)).join(alice.invite())
    carol.append("chan", chan=DEPLOYS, kind="open")
    carol.post(DEPLOYS, "hello")
    bob.drain()
    assert bob.texts == ["hello"]
    epoch = carol.usable(GENERAL)
    assert epoch is not None
    carol.append("chan", chan="77" * 16, kind="group")

    bob.take_post(carol.seal(GENERAL, "ahead", epoch))

    assert bob.roster.seq == carol.roster.seq
    assert bob.texts == ["hello", "ahead"]


def test_unknown_channel_is_looked_up_once() -> None:
    _, (alice, bob) = team("alice", "bob")
    epoch = alice.rotate()
    bob.drain()
    late = Member("carol", alice.broker, Random(7)).join(alice.invite())
    late.append("chan", chan=DEPLOYS, kind="open")

    post = altered(alice.seal(GENERAL, "x", epoch), chan=DEPLOYS)

    assert code_of(bob.take_post, post) == "secretbox_open"
    assert bob.roster.seq == late.roster.seq


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
