"""What the journal's statements promise; on a private database in memory."""

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from claudemesh.crypto.statements import Statement
from claudemesh.peer.journal import inbox, keys, membership, names, outbox, timeline
from claudemesh.peer.journal.inbox import InboxDraft, ReceiptDue
from claudemesh.peer.journal.keys import WindowRow
from claudemesh.peer.journal.membership import AuditFinding, Freeze
from claudemesh.peer.journal.outbox import Draft, SealedRow
from claudemesh.peer.journal.timeline import Evidence
from claudemesh.protocol.audit_view import AuditView
from claudemesh.protocol.delivery import Claim, Outcome, Stage, Witness
from claudemesh.protocol.replay import ReplayWindow
from claudemesh.protocol.roster import Entry
from claudemesh.types import Digest, MeshId, MessageId, PeerId, Priority, SessionId, UnixMillis, UserId

MESH, OTHER_MESH = MeshId("11" * 32), MeshId("22" * 32)
BOB, CAROL = PeerId("b0" * 32), PeerId("c0" * 32)
SESSION = SessionId("5e" * 32)
NOW = UnixMillis(1_000_000)
ACCEPTED, DELIVERED = Claim(Stage.ACCEPTED, Witness.BROKER), Claim(Stage.DELIVERED, Witness.PEER)


def message(number: int) -> MessageId:
    return MessageId(f"{number:032x}")


def draft(number: int, peer: PeerId = BOB, priority: Priority = "next", **changes: Any) -> Draft:
    usual = Draft(message(number), peer, "text/plain", b"text", NOW, priority)
    return usual._replace(**changes)


def received(number: int, sender: PeerId = BOB, **changes: Any) -> InboxDraft:
    usual = InboxDraft(message(number), sender, None, None, b"frame", b"signature", "att", NOW, NOW)
    return usual._replace(**changes)


def record(journal: sqlite3.Connection, number: int, peer: PeerId, claim: Claim) -> timeline.Recorded | None:
    return timeline.record(journal, MESH, message(number), peer, claim, at=NOW, recorded_at=NOW, signer="s")


def test_the_outbox_hands_out_what_is_urgent_first_and_then_what_is_old(journal: sqlite3.Connection) -> None:
    """And nothing of another mesh, nothing that is in memory already, nothing that is settled."""
    outbox.enqueue(journal, MESH, [draft(1), draft(2, priority="low"), draft(3, priority="now"), draft(4)])
    outbox.enqueue(journal, OTHER_MESH, [draft(5)])
    rows = {row.message_id: row.id for row in outbox.load_open(journal, MESH, (), 10)}
    outbox.settle(journal, [rows[message(4)]], Outcome.ACCEPTED)

    assert [row.message_id for row in outbox.load_open(journal, MESH, (), 10)] == [message(3), message(1), message(2)]
    assert [row.message_id for row in outbox.load_open(journal, MESH, {rows[message(3)]}, 1)] == [message(1)]
    assert outbox.count_open(journal, MESH) == 3


def test_the_same_message_is_queued_once_for_each_peer(journal: sqlite3.Connection) -> None:
    """A second call with the same id changes nothing, not even the text."""
    outbox.enqueue(journal, MESH, [draft(1), draft(1, CAROL)])

    outbox.enqueue(journal, MESH, [draft(1, body=b"another text")])

    assert [(row.peer, row.body) for row in outbox.find(journal, MESH, message(1))] == [
        (BOB, b"text"),
        (CAROL, b"text"),
    ]


def test_a_sealed_envelope_is_found_again_after_a_restart(journal: sqlite3.Connection) -> None:
    """With the counter and the attestation that it was sealed under; settling drops it and keeps the text."""
    outbox.enqueue(journal, MESH, [draft(1)])
    (row,) = outbox.load_open(journal, MESH, (), 1)

    outbox.mark_sealed(journal, [SealedRow(row.id, "att", 7, b"envelope")])
    (sealed,) = outbox.load_open(journal, MESH, (), 1)
    outbox.settle(journal, [row.id], Outcome.ACCEPTED)
    (settled,) = outbox.find(journal, MESH, message(1))

    assert (sealed.state, sealed.attestation, sealed.counter, sealed.envelope) == ("sealed", "att", 7, b"envelope")
    assert (settled.state, settled.envelope, settled.body) == ("accepted", None, b"text")


def test_a_settled_row_is_not_brought_back_by_a_late_seal(journal: sqlite3.Connection) -> None:
    """It expired while it was being sealed: it stays expired."""
    outbox.enqueue(journal, MESH, [draft(1)])
    (row,) = outbox.load_open(journal, MESH, (), 1)
    outbox.settle(journal, [row.id], Outcome.EXPIRED)

    outbox.mark_sealed(journal, [SealedRow(row.id, "att", 1, b"envelope")])

    assert outbox.load_open(journal, MESH, (), 1) == []


def test_what_nobody_is_known_to_have_is_submitted_again(journal: sqlite3.Connection) -> None:
    """Accepted and no more, not expired; and receipts and profiles of late. Delivered and refused ones stay settled."""
    outbox.enqueue(journal, MESH, [draft(1), draft(2), draft(3), draft(4, expires_at=UnixMillis(NOW - 1)), draft(5)])
    rows = {row.message_id: row.id for row in outbox.load_open(journal, MESH, (), 10)}
    outbox.settle(journal, [rows[message(number)] for number in (1, 2, 4)], Outcome.ACCEPTED)
    outbox.settle(journal, [rows[message(3)]], Outcome.REFUSED)
    for number in (1, 2, 4):
        record(journal, number, BOB, ACCEPTED)
    record(journal, 2, BOB, DELIVERED)

    outbox.enqueue(
        journal, MESH, [draft(6, content_type="cm/receipt"), draft(7, content_type="cm/profile", created_at=0)]
    )
    own = {row.message_id: row.id for row in outbox.load_open(journal, MESH, (), 10)}
    outbox.settle(journal, [own[message(6)], own[message(7)]], Outcome.ACCEPTED)

    outbox.requeue_undelivered(journal, MESH, NOW, since=UnixMillis(NOW - 1))

    assert [row.message_id for row in outbox.load_open(journal, MESH, (), 10)] == [message(1), message(5), message(6)]


def test_what_expires_unsealed_is_found_when_it_is_due(journal: sqlite3.Connection) -> None:
    """A sealed one may be at the broker: it is not for this machine to say."""
    outbox.enqueue(
        journal, MESH, [draft(1, expires_at=UnixMillis(NOW + 5)), draft(2, expires_at=UnixMillis(NOW + 1)), draft(3)]
    )
    first = outbox.load_open(journal, MESH, (), 10)[0]

    assert outbox.next_expiry(journal, MESH) == NOW + 1
    assert [row.message_id for row in outbox.load_expired(journal, MESH, UnixMillis(NOW + 2))] == [message(2)]
    outbox.mark_sealed(journal, [SealedRow(first.id, "att", 1, b"envelope")])
    assert [row.message_id for row in outbox.load_expired(journal, MESH, UnixMillis(NOW + 9))] == [message(2)]


def test_a_claim_is_recorded_once_and_shown_by_rank(journal: sqlite3.Connection) -> None:
    """In whatever order claims arrive."""
    outbox.enqueue(journal, MESH, [draft(1)])

    first = record(journal, 1, BOB, DELIVERED)
    again = record(journal, 1, BOB, DELIVERED)
    late = record(journal, 1, BOB, ACCEPTED)

    assert first is not None
    assert first.shown == DELIVERED
    assert again is None
    assert late is not None
    assert late.shown == DELIVERED
    assert outbox.find(journal, MESH, message(1))[0].shown == DELIVERED
    assert {row.stage for row in timeline.load(journal, MESH, message(1))} == {Stage.ACCEPTED, Stage.DELIVERED}


@pytest.mark.parametrize(
    ("number", "peer", "claim"),
    [
        (2, BOB, DELIVERED),
        (1, CAROL, DELIVERED),
        (1, BOB, Claim(Stage.DELIVERED, Witness.BROKER)),
        (1, BOB, Claim(Stage.ACCEPTED, Witness.PEER)),
    ],
)
def test_a_claim_about_nothing_of_ours_is_not_recorded(
    journal: sqlite3.Connection, number: int, peer: PeerId, claim: Claim
) -> None:
    """A receipt counts for a message that was sent to the peer who signs it, and for what it can know."""
    outbox.enqueue(journal, MESH, [draft(1)])

    assert record(journal, number, peer, claim) is None
    assert timeline.load(journal, MESH, message(number)) == []


def test_evidence_is_stored_as_it_was_signed(journal: sqlite3.Connection) -> None:
    """One statement may prove many rows."""
    evidence = Evidence("frame", b"frame", b"signature", "att")

    number = timeline.add_evidence(journal, evidence)

    assert timeline.load_evidence(journal, number) == evidence
    assert timeline.load_evidence(journal, number + 1) is None


def test_a_message_enters_the_inbox_once(journal: sqlite3.Connection) -> None:
    """By sender and id: another sender's equal id is another message."""
    first = inbox.add(journal, MESH, received(1))

    assert first is not None
    assert inbox.add(journal, MESH, received(1, frame=b"other")) is None
    assert inbox.add(journal, MESH, received(1, CAROL)) is not None
    assert inbox.holds(journal, MESH, BOB, message(1))
    assert not inbox.holds(journal, MESH, BOB, message(2))
    assert not inbox.holds(journal, OTHER_MESH, BOB, message(1))


def test_a_reader_takes_each_message_once_and_only_what_is_for_it(journal: sqlite3.Connection) -> None:
    """A session reads what is for it and what is for the peer as such."""
    inbox.add(journal, MESH, received(1))
    inbox.add(journal, MESH, received(2, session=SESSION))
    inbox.add(journal, MESH, received(3, session=SessionId("6f" * 32)))
    numbers = {row.message_id: row.id for row in inbox.load_unseen(journal, MESH, None, 0, 10)}

    assert [row.message_id for row in inbox.load_unseen(journal, MESH, SESSION, 0, 10)] == [message(1), message(2)]
    inbox.mark_seen(journal, [numbers[message(1)]], NOW)
    assert [row.message_id for row in inbox.load_unseen(journal, MESH, SESSION, 0, 10)] == [message(2)]
    assert inbox.count_unseen(journal, MESH) == 2
    assert len(inbox.load_latest(journal, MESH, 10)) == 3


def test_a_receipt_is_due_until_it_is_in_the_outbox(journal: sqlite3.Connection) -> None:
    """Owing it twice is owing it once."""
    due = [ReceiptDue(BOB, message(1), "delivered", NOW), ReceiptDue(BOB, message(1), "read", NOW, SESSION)]

    inbox.add_receipts_due(journal, MESH, due)
    inbox.add_receipts_due(journal, MESH, due[:1])
    assert sorted(inbox.load_receipts_due(journal, MESH, 10)) == sorted(due)
    inbox.drop_receipts_due(journal, MESH, due[:1])

    assert inbox.load_receipts_due(journal, MESH, 10) == due[1:]


def test_one_nack_is_sent_for_each_message(journal: sqlite3.Connection) -> None:
    """N11: a hostile broker cannot make this peer send a thousand."""
    assert inbox.note_nack(journal, MESH, BOB, message(1), NOW)
    assert not inbox.note_nack(journal, MESH, BOB, message(1), NOW)
    inbox.drop_old_nacks(journal, MESH, UnixMillis(NOW + 1))
    assert inbox.note_nack(journal, MESH, BOB, message(1), NOW)


def test_refused_envelopes_are_counted_and_not_kept(journal: sqlite3.Connection) -> None:
    """A code, a sender, a count and two times: no content."""
    for offset in range(3):
        inbox.quarantine(journal, MESH, "bad_sig", BOB, UnixMillis(NOW + offset))
    inbox.quarantine(journal, MESH, "time", BOB, NOW)

    rows = {row.code: row for row in inbox.load_quarantine(journal, MESH)}

    assert (rows["bad_sig"].envelopes, rows["bad_sig"].first_at, rows["bad_sig"].last_at) == (3, NOW, NOW + 2)
    assert rows["time"].envelopes == 1


def test_a_replay_window_is_kept_for_as_long_as_its_messages_can_arrive(journal: sqlite3.Connection) -> None:
    """A renewed session keeps it longer, never shorter."""
    window = ReplayWindow().accept(5).window
    keys.save_windows(journal, MESH, [WindowRow(SESSION, window, UnixMillis(NOW + 9))])
    moved = window.accept(6).window
    keys.save_windows(journal, MESH, [WindowRow(SESSION, moved, UnixMillis(NOW + 1))])

    keys.drop_expired_windows(journal, MESH, UnixMillis(NOW + 5))
    assert keys.load_windows(journal, MESH) == [WindowRow(SESSION, moved, UnixMillis(NOW + 9))]
    keys.drop_expired_windows(journal, MESH, UnixMillis(NOW + 10))
    assert keys.load_windows(journal, MESH) == []


def test_a_lower_card_does_not_replace_a_higher_one(journal: sqlite3.Connection) -> None:
    """Nor does another of the same number."""
    cards = [Statement(f"card {number}", BOB, "s") for number in range(3)]
    for number in (1, 2, 0):
        keys.save_card(journal, MESH, BOB, number, cards[number])
    keys.save_card(journal, MESH, BOB, 2, Statement("other", BOB, "s"))

    assert keys.load_cards(journal, MESH) == [cards[2]]


def test_names_are_pinned_in_the_order_of_their_first_sight(journal: sqlite3.Connection) -> None:
    """A second user of a name stands beside the first, not in its place."""
    alice, mallory = UserId("ff" * 32), UserId("00" * 32)
    names.pin(journal, MESH, "alice", alice, NOW)
    names.pin(journal, MESH, "alice", mallory, UnixMillis(NOW + 1))
    names.pin(journal, MESH, "alice", alice, UnixMillis(NOW + 2))

    assert names.load_pins(journal, MESH) == [("alice", alice), ("alice", mallory)]
    names.unpin(journal, MESH, "alice", mallory)
    assert names.load_pins(journal, MESH) == [("alice", alice)]


def test_the_roster_is_stored_once_and_in_order(journal: sqlite3.Connection) -> None:
    """Repeating a write after a crash changes nothing."""
    entries = [Entry(f"entry {number}", {"k": "s"}) for number in range(4)]
    membership.append_entries(journal, MESH, 0, entries[:3])
    membership.append_entries(journal, MESH, 2, entries[2:])

    assert membership.load_entries(journal, MESH) == entries
    assert membership.load_entries(journal, OTHER_MESH) == []
    membership.forget_entries(journal, MESH)
    assert membership.load_entries(journal, MESH) == []


def test_the_first_proof_of_a_freeze_stays(journal: sqlite3.Connection) -> None:
    """Whatever the broker shows afterwards."""
    proof = Freeze("fork", NOW, [Statement("one", "k", "s"), Statement("two", "k", "s")])
    membership.save_freeze(journal, MESH, proof)

    membership.save_freeze(journal, MESH, Freeze("rollback", NOW, []))

    assert membership.load_freeze(journal, MESH) == proof
    assert membership.load_freeze(journal, OTHER_MESH) is None


def test_audit_receipts_are_kept_until_the_log_was_checked_to_hold_them(journal: sqlite3.Connection) -> None:
    """And everything of a broker goes when the mesh leaves it."""
    membership.add_audit_receipts(journal, MESH, [(number, f"{number:064x}") for number in range(10)])
    view = AuditView(6, Digest("ab" * 32), Statement("cp", "k", "s"))

    membership.save_audit_view(journal, MESH, view)

    assert membership.load_audit_view(journal, MESH) == view
    assert sorted(membership.load_audit_receipts(journal, MESH, 0, 100)) == [6, 7, 8, 9]
    assert membership.count_audit_receipts_from(journal, MESH, 8) == 2
    membership.save_audit_finding(journal, MESH, AuditFinding("audit_receipt", "row 7", NOW), [])
    membership.clear_audit_view(journal, MESH)
    assert membership.load_audit_view(journal, MESH) is None
    assert membership.load_audit_finding(journal, MESH) is None
    assert membership.count_audit_receipts_from(journal, MESH, 0) == 0


@pytest.mark.parametrize("find_ids", [outbox.find_ids, inbox.find_ids])
def test_a_message_is_found_by_the_beginning_of_its_id(
    journal: sqlite3.Connection, find_ids: Callable[[sqlite3.Connection, MeshId, str, int], list[MessageId]]
) -> None:
    """The protocol's own messages are not among them."""
    ids = [MessageId("abcd" + "0" * 28), MessageId("abcd" + "f" * 28), MessageId("abce" + "0" * 28)]
    outbox.enqueue(journal, MESH, [draft(0, message_id=one) for one in ids])
    outbox.enqueue(journal, MESH, [draft(0, message_id=MessageId("abcd" + "1" * 28), content_type="cm/receipt")])
    for one in ids:
        inbox.add(journal, MESH, received(0, message_id=one))

    assert set(find_ids(journal, MESH, "abcd", 10)) == set(ids[:2])
    assert find_ids(journal, MESH, "abce", 10) == ids[2:]
    assert find_ids(journal, MESH, "ffff", 10) == []
