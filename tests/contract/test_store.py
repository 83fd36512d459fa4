"""What every store must do; each backend runs the same suite."""

import asyncio
import random
from itertools import count
from typing import Any

from claudemesh.broker.audit import checkpoint
from claudemesh.broker.store.base import (
    Acknowledgement,
    AuditEvent,
    Expired,
    LinkId,
    SessionRow,
    Store,
    Stored,
    Submission,
    Undelivered,
    Usage,
)
from claudemesh.crypto.primitives import signing_key
from claudemesh.protocol import limits
from claudemesh.protocol.audit_view import AuditView, verify
from claudemesh.types import ZERO_DIGEST, BrokerId, Digest, MeshId, MessageId, PeerId, SessionId, UnixMillis
from tests.contract.conftest import Reopen

MESH, OTHER_MESH = MeshId("ab" * 32), MeshId("ac" * 32)
ALICE, BOB, CAROL = PeerId("a1" * 32), PeerId("b2" * 32), PeerId("c3" * 32)
NOW = UnixMillis(1_800_000_000_000)
LATER = UnixMillis(NOW + limits.HOUR_MS)
LINK, SECOND_LINK = LinkId(1), LinkId(2)
BROKER_KEY = signing_key(b"\x07" * 32)

_ids = count(1)


def submission(to: PeerId = BOB, sender: PeerId = ALICE, **changes: Any) -> Submission:
    fields: dict[str, Any] = {
        "mesh": MESH,
        "to": to,
        "sender": sender,
        "id": MessageId(f"{next(_ids):032x}"),
        "priority": "next",
        "size": 1_000,
        "expires_at": UnixMillis(NOW + limits.QUEUE_LIFETIME_MS),
        "attestation": Digest("d4" * 32),
        "payload": b'{"t":"send"}',
    }
    return Submission(**fields | changes)


SESSION = SessionId("ee" * 32)


def notice(item: Undelivered) -> bytes:
    return b"undelivered " + item.id.encode()


def session(peer: PeerId = ALICE, number: int = 1, link: LinkId = LINK, seen: int = NOW) -> SessionRow:
    return SessionRow(
        mesh=MESH,
        peer=peer,
        session=SessionId(f"{number:064x}"),
        link=link,
        connected_at=NOW,
        last_seen=UnixMillis(seen),
        sid="payments",
        pid=4_711,
        cwd="payments-api",
    )


async def verified(store: Store, mesh: MeshId = MESH, receipts: list[Stored] | None = None) -> list[str]:
    """All audit rows, after a peer's verifier has found them whole."""
    n, head = await store.audit_head(mesh)
    rows = await store.audit_rows(mesh, 0, n + 1)
    held = {answer.audit_n: answer.audit_hash for answer in receipts or ()}
    end = checkpoint(mesh, n, head, NOW, BROKER_KEY)
    verify(AuditView(), rows, end, held, mesh=mesh, broker=BrokerId(BROKER_KEY.public))
    return rows


# Append


async def test_an_envelope_is_leased_as_it_was_stored(store: Store) -> None:
    """Payload and attestation come back byte for byte, under the number and time of the answer."""
    sent = submission(payload=bytes(range(256)))

    [answer] = await store.append([sent], NOW)
    [row] = await store.lease(MESH, BOB, LINK, NOW, 10)

    assert (row.q, row.accepted_at, row.kind) == (answer.q, NOW, "dm")
    assert (row.payload, row.attestation) == (sent.payload, sent.attestation)
    assert (answer.duplicate, answer.leased, answer.accepted_at) == (False, False, NOW)


async def test_a_mailbox_survives_reopening(reopen: Reopen) -> None:
    """Everything that was answered is there after a restart, in order, and leased to nobody."""
    store = await reopen()
    await store.lease(MESH, BOB, LINK, NOW, 10)
    answers = await store.append([submission(lease=LINK) for _ in range(5)], NOW)

    store = await reopen()
    rows = await store.lease(MESH, BOB, SECOND_LINK, NOW, 10)

    assert [row.q for row in rows] == [answer.q for answer in answers]
    assert await store.mailbox_usage(MESH, BOB) == Usage(5, 5_000)


async def test_a_number_is_never_used_again(reopen: Reopen) -> None:
    """A peer may acknowledge an old number after everything was deleted and the broker restarted."""
    store = await reopen()
    [first] = await store.append([submission()], NOW)
    await store.acknowledge(MESH, BOB, [first.q], NOW)

    store = await reopen()
    [second] = await store.append([submission()], NOW)

    assert second.q > first.q


async def test_a_duplicate_gets_the_first_answer(store: Store) -> None:
    """While stored, the same id from the same sender is the same row, whatever else the second copy says."""
    sent = submission()
    [first] = await store.append([sent], NOW)
    again = submission(id=sent.id, payload=b"other", priority="now")

    [second] = await store.append([again], LATER)

    assert second == Stored(first.q, True, False, first.audit_n, first.audit_hash, NOW)
    assert [row.payload for row in await store.lease(MESH, BOB, LINK, LATER, 10)] == [sent.payload]
    assert await store.mailbox_usage(MESH, BOB) == Usage(1, 1_000)


async def test_duplicates_among_new_envelopes_are_told_apart(store: Store) -> None:
    """In one call: stored before, new, and twice in the call itself."""
    old, fresh, twin = submission(), submission(), submission()
    [first] = await store.append([old], NOW)

    answers = await store.append([twin, old, fresh, twin], LATER)

    assert [answer.duplicate for answer in answers] == [False, True, False, True]
    assert answers[1].q == first.q
    assert answers[3].q == answers[0].q
    assert len(await store.lease(MESH, BOB, LINK, LATER, 10)) == 3
    assert len(await verified(store, receipts=[first, *answers])) == 3


async def test_the_same_id_of_another_sender_mesh_or_recipient_is_another_envelope(store: Store) -> None:
    """Nobody can take an id away from somebody else."""
    sent = submission()

    answers = await store.append(
        [
            sent,
            submission(id=sent.id, sender=CAROL),
            submission(id=sent.id, to=CAROL),
            submission(id=sent.id, mesh=OTHER_MESH),
        ],
        NOW,
    )

    assert [answer.duplicate for answer in answers] == [False] * 4


async def test_an_id_may_return_after_it_was_acknowledged(store: Store) -> None:
    """The broker forgets what was delivered; the recipient's replay window does not."""
    sent = submission()
    [first] = await store.append([sent], NOW)
    await store.acknowledge(MESH, BOB, [first.q], NOW)

    [second] = await store.append([sent], NOW)

    assert not second.duplicate


async def test_more_envelopes_than_one_statement_holds(store: Store) -> None:
    """A large call is one call: all stored, in order, each with its row in the audit log."""
    sent = [submission(payload=f"{n}".encode()) for n in range(1_300)]

    answers = await store.append(sent, NOW)
    rows = await store.lease(MESH, BOB, LINK, NOW, 2_000)

    assert [row.payload for row in rows] == [one.payload for one in sent]
    assert [answer.audit_n for answer in answers] == list(range(1_300))


# Lease


async def test_leases_are_in_order_limited_and_exclusive(store: Store) -> None:
    """The oldest first; no row is handed to a second link while the first has it."""
    answers = await store.append([submission() for _ in range(5)], NOW)
    qs = [answer.q for answer in answers]

    first = await store.lease(MESH, BOB, LINK, NOW, 2)
    second = await store.lease(MESH, BOB, SECOND_LINK, NOW, 10)
    third = await store.lease(MESH, BOB, LINK, NOW, 10)

    assert [row.q for row in first] == qs[:2]
    assert [row.q for row in second] == qs[2:]
    assert third == []


async def test_concurrent_leases_share_nothing(store: Store) -> None:
    """Many links that ask at once get disjoint rows, and together all of them."""
    await store.append([submission() for _ in range(60)], NOW)

    leases = await asyncio.gather(*(store.lease(MESH, BOB, LinkId(n), NOW, 7) for n in range(12)))

    qs = [row.q for rows in leases for row in rows]
    assert len(qs) == len(set(qs)) == 60


async def test_a_released_row_is_leased_again(store: Store) -> None:
    """What a lost link did not acknowledge goes to the next one, in order."""
    await store.append([submission() for _ in range(3)], NOW)
    first = await store.lease(MESH, BOB, LINK, NOW, 10)
    await store.acknowledge(MESH, BOB, [first[1].q], NOW)

    await store.release(LINK)
    second = await store.lease(MESH, BOB, SECOND_LINK, NOW, 10)

    assert [row.q for row in second] == [first[0].q, first[2].q]


async def test_mailboxes_are_apart(store: Store) -> None:
    """A link leases rows of its own peer in its own mesh only."""
    await store.append([submission(), submission(to=CAROL), submission(mesh=OTHER_MESH)], NOW)

    assert len(await store.lease(MESH, BOB, LINK, NOW, 10)) == 1
    assert len(await store.lease(OTHER_MESH, BOB, SECOND_LINK, NOW, 10)) == 1
    assert await store.lease(OTHER_MESH, CAROL, LinkId(3), NOW, 10) == []


async def test_an_envelope_is_stored_and_leased_in_one_step(store: Store) -> None:
    """With an open link of the recipient, the row is leased when it is stored."""
    await store.lease(MESH, BOB, LINK, NOW, 10)

    [answer] = await store.append([submission(lease=LINK)], NOW)

    assert answer.leased
    assert await store.lease(MESH, BOB, SECOND_LINK, NOW, 10) == []
    await store.release(LINK)
    assert [row.q for row in await store.lease(MESH, BOB, SECOND_LINK, NOW, 10)] == [answer.q]


async def test_a_link_that_has_ended_or_never_leased_gets_no_lease(store: Store) -> None:
    """Otherwise the row would wait for a link that never comes back."""
    await store.lease(MESH, BOB, LINK, NOW, 10)
    await store.release(LINK)

    answers = await store.append([submission(lease=LINK), submission(lease=LinkId(99))], NOW)

    assert [answer.leased for answer in answers] == [False, False]
    assert len(await store.lease(MESH, BOB, SECOND_LINK, NOW, 10)) == 2


async def test_a_link_gets_no_lease_in_the_mailbox_of_another_peer(store: Store) -> None:
    """A wrong pairing leaves the row to its owner."""
    await store.lease(MESH, CAROL, LINK, NOW, 10)

    [answer] = await store.append([submission(to=BOB, lease=LINK)], NOW)

    assert not answer.leased
    assert len(await store.lease(MESH, BOB, SECOND_LINK, NOW, 10)) == 1


# Acknowledge


async def test_acknowledging_deletes_counts_and_may_be_repeated(store: Store) -> None:
    """Unknown numbers are ignored."""
    answers = await store.append([submission() for _ in range(3)], NOW)
    qs = [answer.q for answer in answers]

    assert await store.acknowledge(MESH, BOB, [qs[0], qs[2], 10_000], NOW) == 2
    assert await store.acknowledge(MESH, BOB, [qs[0], qs[2]], NOW) == 0
    assert [row.q for row in await store.lease(MESH, BOB, LINK, NOW, 10)] == [qs[1]]


async def test_nobody_acknowledges_for_another_mailbox(store: Store) -> None:
    """A peer cannot delete what waits for somebody else, or for its own key in another mesh."""
    [answer] = await store.append([submission()], NOW)
    await store.append([submission(to=CAROL), submission(mesh=OTHER_MESH)], NOW)

    assert await store.acknowledge(MESH, CAROL, [answer.q], NOW) == 0
    assert await store.acknowledge(OTHER_MESH, BOB, [answer.q], NOW) == 0
    assert len(await store.lease(MESH, BOB, LINK, NOW, 10)) == 1


async def test_many_mailboxes_are_acknowledged_in_one_call(store: Store) -> None:
    """Each gets its own count; a number that stands twice counts once."""
    to_bob, to_carol = await store.append([submission(), submission(to=CAROL)], NOW)

    counts = await store.acknowledge_many(
        [
            Acknowledgement(mesh=MESH, peer=BOB, qs=[to_bob.q, to_carol.q]),
            Acknowledgement(mesh=MESH, peer=CAROL, qs=[to_carol.q]),
            Acknowledgement(mesh=MESH, peer=BOB, qs=[to_bob.q]),
        ],
        NOW,
    )

    assert counts == [1, 1, 0]
    rows = await verified(store)
    assert ['"event_type":"acknowledge"' in row for row in rows] == [False, False, True, True]


# Schedule and expiry


async def test_a_scheduled_envelope_waits_for_its_time(store: Store) -> None:
    """It is stored and answered at once, due from `not_before` on, and then in its place."""
    await store.lease(MESH, BOB, LINK, NOW, 10)
    [scheduled, plain] = await store.append([submission(not_before=LATER, lease=LINK), submission()], NOW)

    assert not scheduled.leased
    assert await store.next_due(NOW) == LATER
    assert [row.q for row in await store.lease(MESH, BOB, LINK, NOW, 10)] == [plain.q]
    assert await store.due(NOW, UnixMillis(LATER - 1)) == []
    assert await store.due(NOW, LATER) == [(MESH, BOB)]
    assert [row.q for row in await store.lease(MESH, BOB, LINK, LATER, 10)] == [scheduled.q]
    assert await store.next_due(LATER) is None


async def test_a_scheduled_envelope_survives_a_restart(reopen: Reopen) -> None:
    """Its time may come while the broker is down."""
    store = await reopen()
    [scheduled] = await store.append([submission(not_before=LATER)], NOW)

    store = await reopen()

    assert await store.next_due(NOW) == LATER
    assert await store.lease(MESH, BOB, LINK, NOW, 10) == []
    assert [row.q for row in await store.lease(MESH, BOB, LINK, LATER, 10)] == [scheduled.q]


async def test_what_expires_is_deleted_and_its_sender_is_told(store: Store) -> None:
    """The notice is a mailbox row, so it reaches a sender that is offline now."""
    short = submission(expires_at=LATER)
    [answer, kept] = await store.append([short, submission()], NOW)

    early = await store.expire(UnixMillis(LATER - 1), 100, notice)
    lost = await store.expire(LATER, 100, notice)

    assert early == Expired(0, [])
    assert lost == Expired(1, [Undelivered(MESH, BOB, ALICE, short.id)])
    assert [row.q for row in await store.lease(MESH, BOB, LINK, LATER, 10)] == [kept.q]
    [told] = await store.lease(MESH, ALICE, SECOND_LINK, LATER, 10)
    assert (told.kind, told.payload, told.attestation) == ("sys", notice(lost.letters[0]), None)
    assert told.q > answer.q
    assert '"event_type":"expire"' in (await verified(store))[-1]


async def test_a_notice_that_expires_causes_no_further_notice(store: Store) -> None:
    """It goes without a word, and is counted out of its mailbox."""
    await store.append([submission(expires_at=LATER)], NOW)
    await store.expire(LATER, 100, notice)

    lost = await store.expire(UnixMillis(LATER + limits.QUEUE_LIFETIME_MS), 100, notice)

    assert lost == Expired(1, [])
    assert await store.mailbox_usage(MESH, ALICE) == Usage(0, 0)


async def test_expiry_is_limited_and_takes_the_oldest_first(store: Store) -> None:
    """A long queue of expired rows does not hold the writer."""
    sent = [submission(expires_at=UnixMillis(NOW + n)) for n in (3, 1, 2)]
    await store.append(sent, NOW)

    first = await store.expire(LATER, 2, notice)
    second = await store.expire(LATER, 2, notice)

    assert [item.id for item in first.letters] == [sent[1].id, sent[2].id]
    assert [item.id for item in second.letters] == [sent[0].id]


async def test_the_mailbox_of_a_revoked_peer_is_dropped_and_every_sender_is_told(store: Store) -> None:
    """Leased and scheduled rows too; other mailboxes are untouched."""
    await store.append([submission(), submission(sender=CAROL, not_before=LATER), submission(to=CAROL)], NOW)
    await store.lease(MESH, BOB, LINK, NOW, 1)

    lost = await store.drop_mailbox(MESH, BOB, NOW, notice)

    assert {item.sender for item in lost} == {ALICE, CAROL}
    assert await store.lease(MESH, BOB, SECOND_LINK, LATER, 10) == []
    assert await store.mailbox_usage(MESH, BOB) == Usage(0, 0)
    assert [row.kind for row in await store.lease(MESH, ALICE, LinkId(3), NOW, 10)] == ["sys"]
    assert [row.kind for row in await store.lease(MESH, CAROL, LinkId(4), NOW, 10)] == ["dm", "sys"]
    assert '"metadata":{"count":2,"reason":"revoked"}' in (await verified(store))[-1]


async def test_what_a_revoked_peer_sent_waits_for_nobody(store: Store) -> None:
    """In every mailbox, leased and scheduled rows too, a part at a time; what others sent is untouched."""
    sent = [submission(), submission(not_before=LATER), submission(to=CAROL)]
    elsewhere = submission(mesh=OTHER_MESH)
    await store.append([*sent, elsewhere, submission(sender=CAROL), submission(to=ALICE, sender=BOB)], NOW)
    await store.lease(MESH, BOB, LINK, NOW, 1)

    dropped = [await store.drop_sent(MESH, ALICE, NOW, 2) for _ in range(3)]

    assert dropped == [2, 1, 0]
    assert await store.mailbox_usages(MESH, [ALICE, BOB, CAROL]) == [Usage(1, 1_000), Usage(1, 1_000), Usage(0, 0)]
    assert (await store.mailbox_usage(OTHER_MESH, BOB)).rows == 1
    assert [row.kind for row in await store.lease(MESH, BOB, SECOND_LINK, LATER, 10)] == ["dm"]
    rows = await verified(store)
    assert f'"actor_peer_id":"{ALICE[:16]}"' in rows[-1]
    assert '"event_type":"drop"' in rows[-1]
    assert '"metadata":{"count":1,"reason":"revoked"}' in rows[-1]


async def test_a_peer_that_never_sent_anything_has_nothing_to_drop(store: Store) -> None:
    assert await store.drop_sent(MESH, ALICE, NOW, 10) == 0


async def test_it_is_known_how_much_of_a_mailbox_is_whose(store: Store) -> None:
    """Notices are nobody's: they are the broker's."""
    lost = submission(to=CAROL, sender=BOB, expires_at=NOW)
    await store.append([submission(size=300), submission(size=500), submission(sender=CAROL, size=70), lost], NOW)
    await store.expire(NOW, 10, notice)

    assert await store.mailbox_senders(MESH, BOB) == {ALICE: (2, 800), CAROL: (1, 70)}
    assert await store.mailbox_senders(MESH, CAROL) == {}
    assert (await store.mailbox_usage(MESH, BOB)).rows == 4


async def test_a_call_that_fails_leaves_no_trace_in_those_beside_it(store: Store) -> None:
    """What fails is undone alone: queue, counters and audit chain are those of the calls that returned."""
    await store.mailbox_usage(MESH, BOB)
    await store.append([submission(expires_at=NOW)], NOW)

    def broken(item: Undelivered) -> bytes:
        raise ValueError(item.id)

    results = await asyncio.gather(
        *(store.append([submission()], NOW) for _ in range(5)),
        store.expire(NOW, 10, broken),
        *(store.append([submission()], NOW) for _ in range(5)),
        return_exceptions=True,
    )

    answers = [answer for result in results if isinstance(result, list) for answer in result]
    assert [type(result) for result in results] == [list] * 5 + [ValueError] + [list] * 5
    assert await store.mailbox_usage(MESH, BOB) == Usage(11, 11_000)
    assert len(await verified(store, receipts=answers)) == 11
    assert len(await store.lease(MESH, BOB, LINK, NOW, 100)) == 11


# Usage


async def test_usage_follows_everything_that_happens(store: Store) -> None:
    """Rows and bytes are those of the queue after any sequence of calls."""
    assert await store.mailbox_usage(MESH, BOB) == Usage(0, 0)
    sent = submission(size=300)
    answers = await store.append([sent, submission(size=500), submission(size=700, expires_at=LATER)], NOW)
    await store.append([sent], NOW)

    assert await store.mailbox_usage(MESH, BOB) == Usage(3, 1_500)
    await store.acknowledge(MESH, BOB, [answers[0].q], NOW)
    assert await store.mailbox_usage(MESH, BOB) == Usage(2, 1_200)
    await store.expire(LATER, 10, notice)
    assert await store.mailbox_usage(MESH, BOB) == Usage(1, 500)
    assert (await store.mailbox_usage(MESH, ALICE)).rows == 1


async def test_the_usage_of_a_mesh_is_that_of_its_mailboxes_together(reopen: Reopen) -> None:
    """Counted or kept up to date, after any sequence of calls, and without those of other meshes."""

    async def together(store: Store) -> Usage:
        parts = await store.mailbox_usages(MESH, [ALICE, BOB, CAROL])
        return Usage(sum(part.rows for part in parts), sum(part.size for part in parts))

    store = await reopen()
    empty = await store.mesh_usage(MESH)
    [first, *_] = await store.append([submission(size=300), submission(to=CAROL), submission(expires_at=LATER)], NOW)
    full, counted = await store.mesh_usage(MESH), await together(store)
    await store.acknowledge(MESH, BOB, [first.q], NOW)
    await store.expire(LATER, 10, notice)
    after, counted_after = await store.mesh_usage(MESH), await together(store)

    store = await reopen()

    assert (empty, full.rows) == (Usage(0, 0), 3)
    assert (full, after) == (counted, counted_after)
    assert await store.mesh_usage(MESH) == after
    assert await store.mesh_usage(OTHER_MESH) == Usage(0, 0)


# Rosters


async def test_entries_are_appended_by_compare_and_swap(store: Store) -> None:
    """Only who knows the last entry may append; the rest is told to look again."""
    assert await store.append_entries(MESH, -1, [b"e0"], NOW, actor=None, served=False)
    assert not await store.append_entries(MESH, -1, [b"x0"], NOW, actor=ALICE, served=True)
    assert not await store.append_entries(MESH, 1, [b"x2"], NOW, actor=ALICE, served=True)
    assert await store.append_entries(MESH, 0, [b"e1", b"e2"], NOW, actor=ALICE, served=True)

    assert await store.entries(MESH, 0, 10) == [b"e0", b"e1", b"e2"]
    assert await store.entries(MESH, 1, 1) == [b"e1"]
    [mesh] = await store.meshes()
    assert (mesh.mesh, mesh.served, mesh.length, mesh.created_at) == (MESH, True, 3, NOW)
    assert len(await verified(store)) == 2


async def test_of_concurrent_appends_exactly_one_wins(store: Store) -> None:
    """Two nodes of a fork can never both be stored."""
    await store.append_entries(MESH, -1, [b"e0"], NOW, actor=None, served=True)

    won = await asyncio.gather(
        *(store.append_entries(MESH, 0, [b"candidate %d" % n], NOW, actor=ALICE, served=True) for n in range(20))
    )

    assert won.count(True) == 1
    assert await store.entries(MESH, 1, 10) == [b"candidate %d" % won.index(True)]
    assert len(await verified(store)) == 2


async def test_entries_survive_reopening(reopen: Reopen) -> None:
    """The roster is what was answered for."""
    store = await reopen()
    await store.append_entries(MESH, -1, [b"e%d" % n for n in range(700)], NOW, actor=None, served=True)

    store = await reopen()

    assert await store.entries(MESH, 0, 1_000) == [b"e%d" % n for n in range(700)]


async def test_a_mesh_is_found_by_the_prefix_of_a_link(store: Store) -> None:
    """An ambiguous or unknown prefix finds nothing."""
    near = MeshId(MESH[:40] + "f" * 24)
    for mesh in (MESH, near, OTHER_MESH):
        await store.append_entries(mesh, -1, [b"e0"], NOW, actor=None, served=True)

    assert await store.find_mesh(OTHER_MESH[:32]) == OTHER_MESH
    assert await store.find_mesh(MESH[:32]) is None
    assert await store.find_mesh("ff" * 16) is None


async def test_a_deleted_mesh_leaves_nothing(store: Store) -> None:
    """No row of it stays, and another mesh keeps its own."""
    for mesh in (MESH, OTHER_MESH):
        await store.append_entries(mesh, -1, [b"e0"], NOW, actor=None, served=False)
        await store.append([submission(mesh=mesh)], NOW)
        await store.put_card(mesh, ALICE, 1, b"card")
        await store.put_attestation(mesh, ALICE, Digest(mesh), LATER, b"att", session=SESSION)

    await store.delete_mesh(MESH, unserved_before=LATER)

    assert [row.mesh for row in await store.meshes()] == [OTHER_MESH]
    assert await store.entries(MESH, 0, 10) == []
    assert await store.lease(MESH, BOB, LINK, NOW, 10) == []
    assert await store.cards(MESH, [ALICE]) == {}
    assert await store.attestations([Digest(MESH), Digest(OTHER_MESH)]) == {OTHER_MESH: b"att"}
    assert await store.audit_head(MESH) == (0, ZERO_DIGEST)
    assert await store.mailbox_usage(MESH, BOB) == Usage(0, 0)
    assert len(await store.lease(OTHER_MESH, BOB, SECOND_LINK, NOW, 10)) == 1
    assert len(await verified(store, OTHER_MESH)) == 2


async def test_a_mesh_is_deleted_only_while_it_is_old_and_not_served(store: Store) -> None:
    """Whoever decides to delete it has looked a moment ago; an upload on another node may have ended since."""
    await store.append_entries(MESH, -1, [b"e0"], NOW, actor=None, served=False)

    assert not await store.delete_mesh(MESH, unserved_before=NOW)
    await store.append_entries(MESH, 0, [b"e1"], NOW, actor=None, served=True)
    assert not await store.delete_mesh(MESH, unserved_before=LATER)

    assert await store.entries(MESH, 0, 10) == [b"e0", b"e1"]
    assert len(await verified(store)) == 2


async def test_a_mesh_may_be_uploaded_again_after_it_was_deleted(store: Store) -> None:
    """Nothing that was cached of the first one is left."""
    await store.append_entries(MESH, -1, [b"e0"], NOW, actor=None, served=False)
    await store.append([submission()], NOW)
    await store.delete_mesh(MESH, unserved_before=LATER)

    assert await store.append_entries(MESH, -1, [b"e0"], NOW, actor=None, served=True)
    [answer] = await store.append([submission()], NOW)

    assert answer.audit_n == 1
    assert len(await verified(store, receipts=[answer])) == 2


# Cards and attestations


async def test_the_highest_numbered_card_is_kept(store: Store) -> None:
    """An older card never replaces a newer one, and the same number is not replaced either."""
    assert await store.put_card(MESH, ALICE, 2, b"two")
    assert not await store.put_card(MESH, ALICE, 1, b"one")
    assert not await store.put_card(MESH, ALICE, 2, b"other")
    assert await store.put_card(MESH, ALICE, 3, b"three")
    await store.put_card(OTHER_MESH, BOB, 1, b"elsewhere")

    assert await store.cards(MESH, [ALICE, BOB]) == {ALICE: b"three"}


async def test_attestations_are_kept_as_long_as_an_envelope_may_name_them(store: Store) -> None:
    """Repeating one changes nothing; it goes when its end is a queue's lifetime ago."""
    first, second = Digest("01" * 32), Digest("02" * 32)
    await store.put_attestation(MESH, ALICE, first, NOW, b"first", session=SESSION)
    await store.put_attestation(MESH, ALICE, first, LATER, b"changed", session=SESSION)
    await store.put_attestation(MESH, ALICE, second, LATER, b"second", session=SESSION)

    assert await store.attestations([first, second, Digest("03" * 32)]) == {first: b"first", second: b"second"}
    assert await store.expire_attestations(UnixMillis(NOW + limits.QUEUE_LIFETIME_MS)) == 0
    assert await store.expire_attestations(UnixMillis(NOW + limits.QUEUE_LIFETIME_MS + 1)) == 1
    assert await store.attestations([first, second]) == {second: b"second"}


# Presence


async def test_sessions_are_announced_replaced_and_ended_with_their_link(store: Store) -> None:
    """A link's end takes its sessions along and keeps when the peer was last seen."""
    one, two, bobs = session(number=1), session(number=2), session(BOB, 3, SECOND_LINK)
    await store.set_presence([one, two, bobs])
    await store.set_presence([session(number=1, seen=LATER)])

    assert await store.presence(MESH) == [session(number=1, seen=LATER), two, bobs]
    await store.clear_presence(LINK)
    assert await store.presence(MESH) == [bobs]
    assert await store.last_seen(MESH) == {ALICE: LATER, BOB: NOW}
    assert await store.presence(OTHER_MESH) == []


async def test_one_session_of_a_link_can_end(store: Store) -> None:
    """The others stay."""
    await store.set_presence([session(number=1), session(number=2)])

    await store.end_session(MESH, ALICE, SessionId(f"{1:064x}"))

    assert await store.presence(MESH) == [session(number=2)]


async def test_presence_expires_unless_its_link_is_touched(store: Store) -> None:
    """A session whose link died in silence disappears."""
    await store.set_presence([session(), session(BOB, 2, SECOND_LINK)])
    await store.touch_presence([SECOND_LINK], LATER)

    gone = await store.expire_presence(LATER)

    assert gone == [session()]
    assert [row.peer for row in await store.presence(MESH)] == [BOB]
    assert await store.last_seen(MESH) == {ALICE: NOW, BOB: LATER}


# Audit log


async def test_events_are_recorded_in_order_and_by_mesh(store: Store) -> None:
    """Each mesh has a chain of its own; keys are cut to 16 digits."""
    await store.audit(
        [
            AuditEvent(mesh=MESH, event_type="connect", actor=ALICE),
            AuditEvent(mesh=OTHER_MESH, event_type="connect", actor=BOB),
            AuditEvent(mesh=MESH, event_type="refuse", actor=ALICE, target=BOB, reason="mailbox_full", count=3),
        ],
        NOW,
    )

    rows = await verified(store)

    assert rows[0] == (
        f'{{"actor_peer_id":"{ALICE[:16]}","created_at":{NOW},"event_type":"connect","id":0,"mesh_id":"{MESH}",'
        f'"metadata":{{}},"prev_hash":"{ZERO_DIGEST}","target_peer_id":""}}'
    )
    assert '"metadata":{"count":3,"reason":"mailbox_full"}' in rows[1]
    assert f'"target_peer_id":"{BOB[:16]}"' in rows[1]
    assert len(await verified(store, OTHER_MESH)) == 1


async def test_the_chain_continues_after_reopening(reopen: Reopen) -> None:
    """A restart is no break in the log."""
    store = await reopen()
    first = await store.append([submission()], NOW)

    store = await reopen()
    second = await store.append([submission()], NOW)

    assert len(await verified(store, receipts=[*first, *second])) == 2


async def test_the_chain_is_whole_whatever_happens_at_once(store: Store) -> None:
    """Concurrent calls of every kind leave one chain that holds every receipt."""
    chooser = random.Random(7)
    answers: list[Stored] = []

    async def sends(n: int) -> None:
        sent = [submission(to=chooser.choice([BOB, CAROL]), sender=chooser.choice([ALICE, BOB])) for _ in range(n)]
        stored = await store.append(sent, NOW)
        answers.extend(stored)
        await store.acknowledge(MESH, sent[0].to, [stored[0].q], NOW)
        answers.extend(await store.append([sent[-1]], NOW))

    async def other(n: int) -> None:
        await store.audit([AuditEvent(mesh=MESH, event_type="connect", actor=ALICE)] * n, NOW)
        await store.append_entries(MESH, n, [b"entry"], NOW, actor=BOB, served=True)
        await store.expire(NOW, 10, notice)

    await asyncio.gather(*(work(n) for n in range(1, 25) for work in (sends, other)))

    n, _ = await store.audit_head(MESH)
    assert len(await verified(store, receipts=answers)) == n > len(answers) / 2


async def test_audit_rows_come_in_pages(store: Store) -> None:
    """From any row on, at most as many as asked for."""
    await store.audit([AuditEvent(mesh=MESH, event_type="connect", actor=ALICE)] * 10, NOW)

    rows = await store.audit_rows(MESH, 4, 3)

    assert [f'"id":{n},' in row for n, row in enumerate(rows, 4)] == [True] * 3
    assert await store.audit_rows(MESH, 10, 3) == []


async def test_ping_answers(store: Store) -> None:
    """A store that answers can commit."""
    await store.ping()
