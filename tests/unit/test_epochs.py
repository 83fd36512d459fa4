"""Epochs as values, and the book that chooses among them (docs/spec/channels.md §2, §3)."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from claudemesh.crypto.epoch_record import open_record, read_record, record_id
from claudemesh.crypto.epochs import SLOT_CHARACTERS, NewEpoch, channel_key, check_commitment, make_epoch, open_slot
from claudemesh.crypto.statements import Statement
from claudemesh.errors import BadSignature, EpochRefused, Malformed
from claudemesh.protocol import limits
from claudemesh.protocol.codec import decode_envelope, decode_epoch, encode_message
from claudemesh.protocol.epoch_rules import slot_holders
from claudemesh.protocol.epochs import EpochBook, HeldEpoch, rotate
from claudemesh.protocol.heads import SignedHead
from claudemesh.protocol.messages import Post, PublishedEpoch, PutEpoch
from claudemesh.protocol.posts import first_window
from claudemesh.protocol.roster import EVERYONE, GENERAL, Roster
from claudemesh.types import BoxId, ChannelId, PeerId, UnixMillis
from tests.messages import session
from tests.rosters import START, Log, box, channel, family, key

ENTROPY = bytes(range(64))


def made(roster: Roster, *, seq: int | None = None, salt: int = 0, **changes: Any) -> NewEpoch:
    """An epoch for Bob's box key on an entry of the roster."""
    at = roster.seq if seq is None else seq
    draft = {"v": 1, "mesh": roster.mesh, "chan": EVERYONE, "by": key("alice").public, "rs": at, "ra": 0, "rg": ""}
    fields = draft | {"rh": roster.digest_at(at), "at": START} | changes
    entropy = bytes((salt,)) * 32 + ENTROPY[32:]
    return make_epoch(fields, session("session"), [BoxId(box("bob").public)], entropy)


def held(epoch: NewEpoch, received_at: int = START) -> HeldEpoch:
    return HeldEpoch(epoch.record, epoch.secret, UnixMillis(received_at))


def chosen(book: EpochBook, roster: Roster, now: int = START, scope: ChannelId = EVERYONE) -> HeldEpoch | None:
    return book.usable(roster, scope, UnixMillis(now))


# The record and its slots


def test_epoch_is_named_by_its_body_alone() -> None:
    """Two signatures over one body are one epoch, so nobody can multiply it."""
    epoch = made(Log().roster)

    assert epoch.record.id == record_id(epoch.record.body) == read_record(epoch.record.body).id
    assert open_record(epoch.statement) == epoch.record
    assert epoch.record.session == session("session").id
    assert read_record(epoch.record.body).session is None


@pytest.mark.parametrize("field", ["v", "mesh", "chan", "by", "rs", "rh", "ra", "rg", "e", "kc", "at"])
def test_record_has_exactly_its_fields(field: str) -> None:
    body = made(Log().roster).record.body

    with pytest.raises(Malformed, match=f"field: {field} is missing"):
        read_record({name: value for name, value in body.items() if name != field})
    with pytest.raises(Malformed, match="field_type"):
        read_record(body | {field: None})


def test_record_is_signed_as_an_epoch() -> None:
    statement = made(Log().roster).statement

    with pytest.raises(BadSignature):
        open_record(Statement(statement.b, key("alice").public, statement.s))


def test_commitment_binds_the_secret_to_author_scope_and_head() -> None:
    epoch = made(Log().roster)

    check_commitment(epoch.secret, epoch.record)

    for secret in (bytes(31), bytes(33), epoch.secret[:-1] + b"\xff"):
        with pytest.raises(EpochRefused, match="epoch_commit"):
            check_commitment(secret, epoch.record)
    for change in ({"by": "ab" * 32}, {"chan": GENERAL}, {"mesh": "ab" * 32}, {"rs": 9}, {"rh": "ab" * 32}):
        with pytest.raises(EpochRefused, match="epoch_commit"):
            check_commitment(epoch.secret, read_record(epoch.record.body | change))


def test_slot_names_its_key_and_has_one_length() -> None:
    """A peer with several keys tries exactly one of them."""
    epoch = made(Log().roster)
    boxes = {BoxId(box(name).public): box(name).secret for name in ("older", "bob", "newer")}

    (slot,) = epoch.slots

    assert (len(slot), slot[:8]) == (SLOT_CHARACTERS, box("bob").public[:8]) == (72, box("bob").public[:8])
    assert open_slot(slot, epoch.record, boxes) == epoch.secret


def test_draft_that_nobody_would_take_makes_no_epoch() -> None:
    for changes in ({"chan": "x"}, {"rs": -1}, {"e": "ab" * 32}, {"rg": "00"}):
        with pytest.raises(Malformed):
            made(Log().roster, **changes)


def test_channels_of_one_epoch_have_different_keys() -> None:
    channels = [EVERYONE, GENERAL, ChannelId(channel("x"))]

    assert len({channel_key(bytes(32), one) for one in channels}) == 3


def test_secrets_are_not_shown() -> None:
    epoch = made(Log().roster)

    for shown in (repr(epoch), repr(held(epoch)), repr(EpochBook([held(epoch)]))):
        assert epoch.secret.hex() not in shown
        assert repr(epoch.secret) not in shown


# The book


def test_epoch_is_usable_until_the_next_membership_change() -> None:
    """The send rule; an entry that changes no membership changes nothing."""
    log = Log()
    book = EpochBook([held(made(log.roster))])

    log.append("chan", "alice", chan=channel("x"), kind="group")
    assert chosen(book, log.roster) is not None
    log.with_member("bob")

    assert chosen(book, log.roster) is None


def test_every_membership_change_of_a_private_channel_ends_its_epochs() -> None:
    """Added, removed, revoked, another box key: each is a change of who could read."""
    log = family()
    scope = ChannelId(channel("x"))
    log.append("chan", "alice", chan=scope, kind="private")
    bob = key("bob").public
    changes: list[Callable[[], object]] = [
        lambda: log.append("chan_add", "alice", chan=scope, who=bob),
        lambda: log.append("rekey", "bob", box=box("new").public, cs=1),
        lambda: log.append("chan_del", "alice", chan=scope, who=bob),
        lambda: log.append("chan_add", "alice", chan=scope, who=bob),
        lambda: log.append("revoke", "alice", who=bob, why="left"),
    ]

    for change in changes:
        book = EpochBook([held(made(log.roster, chan=scope))])
        assert chosen(book, log.roster, scope=scope) is not None
        change()
        assert chosen(book, log.roster, scope=scope) is None
    book = EpochBook([held(made(log.roster, chan=scope))])
    log.append("revoke", "alice", who=key("carol").public, why="left")
    assert chosen(book, log.roster, scope=scope) is not None


def test_choice_is_the_newest_roster_then_the_smallest_id_in_whatever_order_they_came() -> None:
    log = Log()
    older = [held(made(log.roster, salt=salt)) for salt in range(2)]
    log.append("chan", "alice", chan=channel("x"), kind="group")
    newer = [held(made(log.roster, salt=salt)) for salt in range(2)]

    for order in itertools.permutations(older + newer):
        book = EpochBook(order)
        assert chosen(book, log.roster) == min(newer, key=lambda epoch: epoch.id)
        assert [epoch.record.roster_seq for epoch in book.of_scope(EVERYONE)] == [1, 1, 0, 0]


def test_epoch_lasts_seven_days_from_the_earlier_of_making_and_receiving() -> None:
    roster = Log().roster
    week = limits.EPOCH_MAX_MS
    early, late = held(made(roster, at=START + 5)), held(made(roster), received_at=START + 5)

    for epoch, born in ((early, START), (late, START)):
        assert chosen(EpochBook([epoch]), roster, born + week - 1) == epoch
        assert chosen(EpochBook([epoch]), roster, born + week) is None


def test_old_epoch_does_not_hide_a_younger_one() -> None:
    roster = Log().roster
    epochs = sorted((held(made(roster, salt=salt, at=START - at)) for salt, at in ((0, 8), (1, 0))), key=lambda e: e.id)
    book = EpochBook(epochs)

    younger = max(epochs, key=lambda epoch: epoch.record.made_at)

    assert chosen(book, roster, START + limits.EPOCH_MAX_MS - 1) == younger


def test_epoch_of_another_history_is_not_usable() -> None:
    """Nor one of a roster that is ahead: its members are not known here yet."""
    log = Log()
    book = EpochBook([held(made(log.roster, rh="ab" * 32)), held(made(log.roster, rs=5, rh="ab" * 32))])

    assert chosen(book, log.roster) is None


def test_epoch_without_its_signature_is_read_with_and_not_sent_under() -> None:
    roster = Log().roster
    epoch = held(made(roster))
    told = HeldEpoch(read_record(epoch.record.body), epoch.secret, START)
    book = EpochBook([told])

    assert book.find(epoch.id) == told
    assert chosen(book, roster) is None
    assert book.hold(epoch)
    assert chosen(book, roster) == epoch
    assert not book.hold(told)
    assert not book.hold(epoch)
    assert book.of_scope(EVERYONE) == [epoch]


def test_scopes_do_not_share_epochs() -> None:
    log = Log()
    log.append("chan", "alice", chan=channel("x"), kind="private")
    book = EpochBook([held(made(log.roster))])

    assert chosen(book, log.roster, scope=ChannelId(channel("x"))) is None
    assert book.find("ab" * 32) is None
    assert book.of_scope(ChannelId(channel("x"))) == []


# Rotation


def test_rotation_is_for_exactly_the_members_of_now() -> None:
    log = family()
    log.append("revoke", "alice", who=key("bob").public, why="left")
    roster = log.roster
    assert roster.mesh is not None
    head = SignedHead(roster.mesh, roster.seq, roster.head, START, "ab" * 64)
    boxes = {member.id: member.box for member in roster.members.values()}

    epoch = rotate(roster, head, EVERYONE, PeerId(key("alice").public), session("session"), boxes, START, ENTROPY)

    holders = sorted(key(name).public for name in ("alice", "carol", "adam"))
    assert slot_holders(roster, EVERYONE, roster.seq) == holders
    assert [slot[:8] for slot in epoch.slots] == [boxes[PeerId(peer)][:8] for peer in holders]
    assert (epoch.record.body["ra"], epoch.record.body["rg"]) == (START, "ab" * 64)


def test_slots_are_for_the_members_of_then() -> None:
    """Every verifier finds the same holders for an old record, whatever has happened since."""
    log = Log()
    then = log.roster.seq
    log.with_member("bob")

    assert slot_holders(log.roster, EVERYONE, then) == [key("alice").public]
    assert slot_holders(log.roster, ChannelId(channel("none")), then) == []


def test_newcomer_to_a_stream_has_missed_nothing() -> None:
    window, gap = first_window(7).accept(7)

    assert gap == 0
    assert window.accept(6).gap == 0
    assert window.accept(9).gap == 1


# Frames


def test_epoch_and_post_survive_the_wire() -> None:
    roster = Log().roster
    epoch = made(roster)
    post = Post(
        mesh="ab" * 32,
        sender="cd" * 32,
        chan=GENERAL,
        ep=epoch.record.id,
        id="1d" * 16,
        prio="next",
        rs=0,
        att="ef" * 32,
        nonce="A" * 32,
        ct="AAAA",
    )
    frame = encode_message(post)

    assert decode_envelope(frame) == post
    assert b'"from"' in frame
    published = encode_message(PutEpoch(rid=1, st=epoch.statement, att="ef" * 32, slots=list(epoch.slots)))
    assert decode_epoch(published) == PublishedEpoch(epoch.statement, "ef" * 32)
    for other in (b"{}", b"[]", b'{"t":"ack","q":[1]}', b"x"):
        with pytest.raises(Malformed):
            decode_envelope(other)
        with pytest.raises(Malformed):
            decode_epoch(other)
