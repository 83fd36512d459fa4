"""Mailboxes in PostgreSQL: append direct messages, acknowledge; which hold something.

A batch is a handful of statements whatever its size: rows go in with COPY, lists as arrays. That a row is new is
looked up first: its mesh is held, so nobody else can store it in between.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from claudemesh.broker.audit import details
from claudemesh.broker.store.base import Acknowledgement, Stored, Submission
from claudemesh.broker.store.postgres.addresses import Address, Addresses
from claudemesh.broker.store.postgres.leases import Leases
from claudemesh.broker.store.postgres.transaction import Transaction
from claudemesh.broker.store.postgres.usages import Usages
from claudemesh.protocol.audit_rows import size_class
from claudemesh.types import Digest, MeshId, MessageId, PeerId, UnixMillis

COLUMNS: Final = (
    "recipient",
    "q",
    "sender",
    "message_id",
    "kind",
    "size",
    "not_before",
    "expires_at",
    "accepted_at",
    "lease",
    "attestation",
    "audit_n",
    "payload",
)
"""Of a row with a payload of its own."""

NEXT_DUE: Final = "SELECT min(not_before) FROM mailbox WHERE not_before > $1"
DUE: Final = """
    SELECT DISTINCT mesh_id, peer_id FROM mailbox JOIN peers ON ref = recipient
    WHERE not_before > $1 AND not_before <= $2
"""

# The limit keeps the planner from reading the mailbox first, which it believes empty when it was vacuumed empty: then
# each of its rows would be compared with each of ours. There is one row at most.
_FIRST_ANSWERS: Final = """
    SELECT k.at::int - 1, m.q, m.audit_n, m.accepted_at
    FROM unnest($1::bigint[], $2::bigint[], $3::text[]) WITH ORDINALITY k (recipient, sender, message_id, at)
    CROSS JOIN LATERAL (
        SELECT q, audit_n, accepted_at FROM mailbox
        WHERE recipient = k.recipient AND sender = k.sender AND message_id = k.message_id AND kind = 'dm'
            AND shared IS NULL
        LIMIT 1
    ) m
"""
_HASH: Final = "SELECT hash FROM audit_log WHERE mesh_id = $1 AND id = $2"
# For the same reason rows are found one by one, and then deleted where they are. One that another node releases at that
# moment is another version of itself and may stay: it is handed out once more, to a peer that knows its id.
_DELETE: Final = """
    WITH unleased AS (
        DELETE FROM leases WHERE ctid = ANY (ARRAY(
            SELECT l.ctid FROM unnest($1::bigint[], $2::bigint[]) k (recipient, q)
            CROSS JOIN LATERAL (SELECT ctid FROM leases WHERE recipient = k.recipient AND q = k.q LIMIT 1) l
        ))
    )
    DELETE FROM mailbox WHERE ctid = ANY (ARRAY(
        SELECT m.ctid FROM unnest($1::bigint[], $2::bigint[]) k (recipient, q)
        CROSS JOIN LATERAL (SELECT ctid FROM mailbox WHERE recipient = k.recipient AND q = k.q LIMIT 1) m
    )) RETURNING recipient, q, size, shared
"""
_DELETE_UNSHARED: Final = """
    DELETE FROM payloads WHERE ref = ANY ($1::bigint[])
        AND NOT EXISTS (SELECT FROM mailbox WHERE shared = payloads.ref)
"""

_Key = tuple[MeshId, PeerId, PeerId, MessageId]


class Mailboxes:
    """Every mailbox."""

    def __init__(self, addresses: Addresses, leases: Leases, usages: Usages) -> None:
        self._addresses = addresses
        self._leases = leases
        self._usages = usages

    # Append

    async def append(
        self, transaction: Transaction, submissions: Sequence[Submission], now: UnixMillis
    ) -> list[Stored]:
        """Store the envelopes that are new; the others get the answer of the first."""
        refs = await self._addresses.obtain(
            transaction, [address for s in submissions for address in ((s.mesh, s.to), (s.mesh, s.sender))]
        )
        answers = await self._first_answers(transaction, submissions, refs)
        new: dict[_Key, Submission] = {}
        for submission in submissions:
            key = _key(submission)
            if key not in answers:
                new.setdefault(key, submission)
        fresh = dict(zip(new, await self._store(transaction, list(new.values()), refs, now), strict=True))
        stored = []
        for key in map(_key, submissions):
            answer = fresh.pop(key) if key in fresh else _repeated(answers[key])
            answers[key] = answer
            stored.append(answer)
        return stored

    async def _store(
        self, transaction: Transaction, submissions: Sequence[Submission], refs: Mapping[Address, int], now: UnixMillis
    ) -> list[Stored]:
        rows: list[tuple[Any, ...]] = []
        answers = []
        counts = Counter(s.mesh for s in submissions)
        numbers = {mesh: iter(await transaction.numbers(mesh, count)) for mesh, count in counts.items()}
        for s in submissions:
            q = next(numbers[s.mesh])
            address = (s.mesh, s.to)
            told = details(priority=s.priority, size_class=size_class(s.size))
            record = transaction.record(s.mesh, "send", s.sender, s.to, told, now)
            due_at = s.not_before
            leased = self._leases.holds(address, s.lease) and (due_at is None or due_at <= now)
            rows.append(
                (
                    refs[address],
                    q,
                    refs[s.mesh, s.sender],
                    s.id,
                    "dm",
                    s.size,
                    due_at,
                    s.expires_at,
                    now,
                    s.lease if leased else None,
                    s.attestation,
                    record.id,
                    s.payload,
                )
            )
            self._usages.count(address, 1, s.size)
            answers.append(Stored(q, False, leased, record.id, record.hash, now))
        await transaction.copy("mailbox", COLUMNS, rows)
        return answers

    async def _first_answers(
        self, transaction: Transaction, submissions: Sequence[Submission], refs: Mapping[Address, int]
    ) -> dict[_Key, Stored]:
        recipients = [refs[s.mesh, s.to] for s in submissions]
        senders = [refs[s.mesh, s.sender] for s in submissions]
        found = await transaction.fetch(_FIRST_ANSWERS, recipients, senders, [s.id for s in submissions])
        answers = {}
        for at, q, n, accepted_at in found:
            submission = submissions[at]
            row_hash = await hash_of(transaction, submission.mesh, n)
            answers[_key(submission)] = Stored(q, True, False, n, row_hash, accepted_at)
        return answers

    # Acknowledge

    async def acknowledge(
        self, transaction: Transaction, acks: Sequence[Acknowledgement], now: UnixMillis
    ) -> list[int]:
        """Delete what was acknowledged; returns how many rows each of `acks` deleted."""
        refs = await self._addresses.find(transaction, [(ack.mesh, ack.peer) for ack in acks])
        wanted = [(ref, q) for ack in acks if (ref := refs.get((ack.mesh, ack.peer))) is not None for q in ack.qs]
        deleted = await remove(transaction, wanted)
        counts = []
        for ack in acks:
            address = (ack.mesh, ack.peer)
            ref = refs.get(address, 0)
            sizes = [size for q in ack.qs if (size := deleted.pop((ref, q), None)) is not None]
            if sizes:
                self._usages.count(address, -len(sizes), -sum(sizes))
                transaction.record(ack.mesh, "acknowledge", ack.peer, None, details(count=len(sizes)), now)
            counts.append(len(sizes))
        return counts


async def remove(transaction: Transaction, rows: Sequence[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """Delete rows, given by recipient and number, and payloads without rows; returns the sizes of those found."""
    if not rows:
        return {}
    recipients, qs = [recipient for recipient, _ in rows], [q for _, q in rows]
    found = await transaction.fetch(_DELETE, recipients, qs)
    shared = {ref for _, _, _, ref in found if ref is not None}
    if shared:
        await transaction.execute(_DELETE_UNSHARED, list(shared))
    return {(recipient, q): size for recipient, q, size, _ in found}


async def hash_of(transaction: Transaction, mesh: MeshId, n: int) -> Digest:
    """The hash of an audit row that exists, perhaps since this transaction."""
    await transaction.flush()
    [(row_hash,)] = await transaction.fetch(_HASH, mesh, n)
    return Digest(row_hash)


def _repeated(answer: Stored) -> Stored:
    return Stored(answer.q, True, False, answer.audit_n, answer.audit_hash, answer.accepted_at)


def _key(submission: Submission) -> _Key:
    return submission.mesh, submission.to, submission.sender, submission.id
