"""Secrets of epochs that are handed on, or asked for by those who must not have them (docs/spec/channels.md §6, §7)."""

from random import Random
from typing import Any

import pytest

from claudemesh.crypto import epochs
from claudemesh.crypto.epoch_record import EpochRecord, open_record, read_record
from claudemesh.crypto.epochs import open_slot
from claudemesh.errors import RosterRefused
from claudemesh.protocol.epoch_handover import offer_repair, share_history, take_history, take_repair
from claudemesh.protocol.epochs import HeldEpoch
from claudemesh.protocol.roster import GENERAL
from claudemesh.types import BoxId, PeerId
from tests.channel_forgeries import DEPLOYS, code_of, make, make_private_channel
from tests.channel_members import Member, team


def test_joiner_reads_the_past_only_when_a_member_shares_it() -> None:
    """A39: by an explicit record, bound to the epoch that the old messages name."""
    broker, (alice, bob) = team("alice", "bob")
    before = alice.post(GENERAL, "before")
    bob.drain()
    carol = Member("carol", broker, Random(7)).join(alice.invite())
    after = bob.post(GENERAL, "after")
    carol.drain()
    assert carol.texts == ["after"]
    assert code_of(carol.take_post, before) == "no_epoch_key"
    old, new = bob.book.find(before.ep), bob.book.find(after.ep)
    assert old is not None
    assert new is not None

    shared = share_history(old, new, bytes(24))
    carol.hold(take_history(shared, carol.book, carol.clock.now))

    assert carol.take_post(before).opened.body == b"before"
    assert carol.take_post(alice.seal(GENERAL, "again", old)).is_stale
    forged = {**shared, "old": {**shared["old"], "kc": "00" * 32}}
    assert code_of(take_history, forged, carol.book, carol.clock.now) == "epoch_commit"
    assert code_of(take_history, {**shared, "ct": shared["ct"][:-4] + "AAAA"}, carol.book, 0) == "secretbox_open"
    assert code_of(take_history, {**shared, "n": ""}, carol.book, 0) == "secretbox_open"
    assert code_of(take_history, {**shared, "new": "ab" * 32}, carol.book, 0) == "no_epoch_key"
    assert code_of(take_history, {**shared, "more": 1}, carol.book, 0) == "field"
    assert code_of(take_history, {**shared, "old": {**shared["old"], "chan": DEPLOYS}}, carol.book, 0) == "epoch"


def test_history_is_shared_within_one_channel_only() -> None:
    _, (alice, bob) = team("alice", "bob")
    make_private_channel(alice, bob)
    everybody, private = alice.rotate(), alice.rotate(DEPLOYS)

    assert code_of(share_history, private, everybody, bytes(24)) == "epoch"


def test_owner_cannot_enter_a_private_channel() -> None:
    """A40: neither by an entry nor by a slot; who leaves is out with the next message."""
    broker, (alice, bob, carol) = team("alice", "bob", "carol")
    make_private_channel(bob, carol)
    with pytest.raises(RosterRefused, match="denied"):
        alice.append("chan_add", chan=DEPLOYS, who=alice.id)

    first = bob.post(DEPLOYS, "psst")
    carol.drain()
    bob.append("chan_del", chan=DEPLOYS, who=carol.id)
    bob.post(DEPLOYS, "alone")

    assert [set(stored.slots) for stored in broker.epochs] == [{bob.id, carol.id}, {bob.id}]
    assert carol.texts == ["psst"]
    assert code_of(alice.take_epoch, broker.epochs[0]) == "no_slot"
    assert code_of(alice.take_post, first) == "no_epoch_key"
    assert code_of(alice.rotate, DEPLOYS) == "epoch_author"


def test_stolen_box_key_opens_nothing_after_the_rekey() -> None:
    """A47: a replaced key counts as a membership change, so every epoch that it could open is outdated."""
    broker, (alice, bob) = team("alice", "bob")
    before = alice.post(GENERAL, "before")
    stolen = {BoxId(bob.boxes[0].public): bob.boxes[0].secret}

    bob.rekey()
    after = alice.post(GENERAL, "after")

    old, new = broker.epochs
    assert after.ep != before.ep
    assert open_slot(old.slots[bob.id], open_record(old.statement), stolen)
    assert code_of(open_slot, new.slots[bob.id], open_record(new.statement), stolen) == "stale_key"
    box = BoxId(bob.boxes[1].public)
    renamed = box[: epochs.SLOT_KEY_DIGITS] + new.slots[bob.id][epochs.SLOT_KEY_DIGITS :]
    assert code_of(open_slot, renamed, open_record(new.statement), stolen) == "box_open"
    bob.drain()
    assert bob.texts == ["before", "after"]


def test_slot_is_repaired_for_the_entitled_only() -> None:
    """A48: whoever was in the channel when the epoch was made, and is active."""
    broker, (alice, bob, carol) = team("alice", "bob", "carol")
    post = alice.post(GENERAL, "x")
    broken = broker.epochs[0]
    del broken.slots[carol.id]
    carol.drain()
    dave = Member("dave", broker, Random(9)).join(alice.invite())
    alice.sync()
    epoch = alice.book.find(post.ep)
    assert epoch is not None

    assert code_of(offer_repair, epoch, dave.id, alice.roster) == "not_entitled"
    assert code_of(offer_repair, epoch, PeerId("ab" * 32), alice.roster) == "not_entitled"
    repair = offer_repair(epoch, carol.id, alice.roster)
    carol.hold(_take(repair, carol))

    assert carol.texts == ["x"]
    assert carol.refusals == {"no_slot": 1, "no_epoch_key": 1}
    assert code_of(_take, {**repair, "k": "00" * 32}, carol) == "epoch_commit"
    assert code_of(_take, {**repair, "ep": "00" * 32}, carol) == "epoch"
    assert code_of(_take, {**repair, "b": {**repair["b"], "at": 1}}, carol) == "epoch"
    alice.append("revoke", who=bob.id, why="removed")
    assert code_of(offer_repair, epoch, bob.id, alice.roster) == "not_entitled"


def _take(repair: dict[str, Any], member: Member, announced: EpochRecord | None = None) -> HeldEpoch:
    assert member.roster.mesh is not None
    return take_repair(repair, member.roster.mesh, member.clock.now, announced)


def test_epoch_that_one_was_merely_told_of_is_never_sent_under() -> None:
    """A member outside a private channel invents an epoch for it and offers it as a repair."""
    _, (alice, bob, mallory) = team("alice", "bob", "mallory")
    make_private_channel(alice, bob)
    mallory.sync()
    invented = make(mallory, bob, chan=DEPLOYS, by=alice.id)
    repair = {"b": invented.record.body, "ep": invented.record.id, "k": invented.secret.hex()}

    bob.hold(_take(repair, bob))

    assert bob.book.find(invented.record.id) is not None
    assert bob.usable(DEPLOYS) is None


def test_repair_of_an_announced_epoch_makes_it_usable() -> None:
    """The signed record was received with a bad slot: the secret that it commits to is then as good as a slot."""
    broker, (alice, bob) = team("alice", "bob")
    epoch = alice.rotate()
    announced = open_record(broker.epochs[0].statement)
    repair = offer_repair(epoch, bob.id, alice.roster)
    bob.hold(_take(repair, bob))
    assert bob.usable(GENERAL) is None

    other = make(alice, bob).record
    assert not _take(repair, bob, other).is_vouched
    bob.hold(_take(repair, bob, announced))

    usable = bob.usable(GENERAL)
    assert usable is not None
    assert usable.id == epoch.id
    assert not bob.book.hold(HeldEpoch(read_record(epoch.record.body), epoch.secret, bob.clock.now))
    assert bob.usable(GENERAL) == usable
