"""Mailboxes in SQLite: append direct messages, lease, acknowledge.

A batch is a handful of statements whatever its size (see `many_rows`): lists go in as one JSON array and come
out as one row that holds a JSON array.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from claudemesh.broker.audit import details
from claudemesh.broker.store.base import (
    Acknowledgement,
    Leased,
    LinkId,
    Stored,
    Submission,
)
from claudemesh.broker.store.sqlite.addresses import Address, Addresses
from claudemesh.broker.store.sqlite.audit_log import AuditLog, hash_of
from claudemesh.broker.store.sqlite.leases import Leases
from claudemesh.broker.store.sqlite.many_rows import ManyRows
from claudemesh.broker.store.sqlite.usages import Usages
from claudemesh.protocol.audit_rows import size_class
from claudemesh.types import MeshId, MessageId, PeerId, UnixMillis

INSERT_ROWS: Final = ManyRows(
    "INSERT OR IGNORE INTO mailbox (q, recipient, sender, message_id, kind, size, scheduled, not_before, expires_at,"
    " accepted_at, attestation, audit_n, payload) SELECT * FROM (VALUES :rows) WHERE column1 IS NOT NULL",
    width=13,
)
"""Rows with payloads of their own."""
_LAST_Q: Final = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'mailbox'"
_UNDO: Final = "DELETE FROM mailbox WHERE q BETWEEN ? AND ?"
_FIRST_ANSWERS: Final = """
    SELECT k.key, m.q, m.audit_n, m.accepted_at
    FROM json_each(?) k CROSS JOIN mailbox m
    WHERE m.recipient = k.value ->> 0 AND m.sender = k.value ->> 1 AND m.message_id = k.value ->> 2 AND m.kind = 'dm'
        AND m.shared IS NULL
"""
_LEASABLE: Final = """
    SELECT q, m.accepted_at, m.kind, coalesce(m.payload, p.payload), coalesce(m.attestation, p.attestation),
        coalesce(slot, '')
    FROM mailbox m LEFT JOIN payloads p ON p.ref = m.shared
    WHERE recipient = ? AND scheduled = 0 AND q NOT IN (SELECT value FROM json_each(?))
    ORDER BY q LIMIT ?
"""
_HAS_LEASABLE: Final = """
    SELECT 1 FROM mailbox WHERE recipient = ? AND scheduled = 0 AND q NOT IN (SELECT value FROM json_each(?)) LIMIT 1
"""
_FIND: Final = """
    SELECT json_group_array(json_array(q, recipient, size, shared)) FROM mailbox
    WHERE q IN (SELECT value FROM json_each(?))
"""
_DELETE: Final = "DELETE FROM mailbox WHERE q IN (SELECT value FROM json_each(?))"
_DELETE_UNSHARED: Final = """
    DELETE FROM payloads WHERE ref IN (SELECT value FROM json_each(?))
        AND NOT EXISTS (SELECT 1 FROM mailbox WHERE shared = payloads.ref)
"""
_RELEASE_DUE: Final = "UPDATE mailbox SET scheduled = 0 WHERE scheduled = 1 AND not_before <= ?"
_NEXT_SCHEDULED: Final = "SELECT min(not_before) FROM mailbox WHERE scheduled = 1 AND not_before IS NOT NULL"
_NEXT_DUE: Final = "SELECT min(not_before) FROM mailbox WHERE not_before > ?"
_DUE: Final = """
    SELECT DISTINCT mesh_id, peer_id FROM mailbox JOIN peers ON ref = recipient
    WHERE not_before > ? AND not_before <= ?
"""

_to_json: Final = msgspec.json.Encoder().encode
_from_json: Final = msgspec.json.Decoder(list[tuple[int, int, int, int | None]]).decode

_Key = tuple[MeshId, PeerId, PeerId, MessageId]


class Mailboxes:
    """Every mailbox. Methods that take a connection run on the writer's thread, except where they say otherwise."""

    def __init__(self, addresses: Addresses, audit_log: AuditLog, leases: Leases, usages: Usages) -> None:
        self._addresses = addresses
        self._audit_log = audit_log
        self._leases = leases
        self._usages = usages
        self._next_q = 1
        self._next_scheduled: int | None = None

    def load(self, connection: sqlite3.Connection) -> None:
        """Continue where the last process ended."""
        self._next_q = connection.execute(_LAST_Q).fetchone()[0] + 1
        self._next_scheduled = connection.execute(_NEXT_SCHEDULED).fetchone()[0]

    def number(self, count: int) -> int:
        """Take `count` consecutive numbers of new rows, none of which is used again; returns the first."""
        first_q = self._next_q
        self._next_q += count
        return first_q

    def schedule(self, due_at: UnixMillis) -> None:
        """Rows are stored that are leasable from `due_at` on."""
        self._next_scheduled = min(due_at, self._next_scheduled or due_at)

    # Append

    def append(
        self, connection: sqlite3.Connection, submissions: Sequence[Submission], now: UnixMillis
    ) -> list[Stored]:
        """Store envelopes; those that are stored already are found only when an insert was ignored."""
        first_q = self._next_q
        if self._insert(connection, submissions, now) == len(submissions):
            return self._record(connection, submissions, first_q, now)
        connection.execute(_UNDO, (first_q, self._next_q - 1))
        return self._append_new(connection, submissions, now)

    def _append_new(
        self, connection: sqlite3.Connection, submissions: Sequence[Submission], now: UnixMillis
    ) -> list[Stored]:
        """Store those that are new; the others get the answer of the first."""
        answers = self._first_answers(connection, submissions)
        new: dict[_Key, Submission] = {}
        for submission in submissions:
            if _key(submission) not in answers:
                new.setdefault(_key(submission), submission)
        first_q = self._next_q
        if self._insert(connection, list(new.values()), now) != len(new):
            raise AssertionError("a submission is neither new nor stored")
        fresh = dict(zip(new, self._record(connection, list(new.values()), first_q, now), strict=True))
        stored = []
        for key in map(_key, submissions):
            answer = fresh.pop(key) if key in fresh else _repeated(answers[key])
            answers[key] = answer
            stored.append(answer)
        return stored

    def _insert(self, connection: sqlite3.Connection, submissions: Sequence[Submission], now: UnixMillis) -> int:
        refs = self._refs(connection, submissions)
        next_n: dict[MeshId, int] = {}
        rows = []
        q = self._next_q
        for s in submissions:
            mesh = s.mesh
            n = next_n.get(mesh)
            if n is None:
                n = self._audit_log.chain(connection, mesh).n
            next_n[mesh] = n + 1
            due_at = s.not_before
            scheduled = due_at is not None and due_at > now
            if due_at is not None and scheduled:
                self.schedule(due_at)
            rows.append(
                (
                    q,
                    refs[mesh, s.to],
                    refs[mesh, s.sender],
                    s.id,
                    "dm",
                    s.size,
                    scheduled,
                    due_at,
                    s.expires_at,
                    now,
                    s.attestation,
                    n,
                    s.payload,
                )
            )
            q += 1
        self._next_q = q
        return INSERT_ROWS.execute(connection, rows)

    def _record(
        self, connection: sqlite3.Connection, submissions: Sequence[Submission], first_q: int, now: UnixMillis
    ) -> list[Stored]:
        """Audit, count and lease rows that were inserted with ascending numbers from `first_q` on."""
        records, answers = [], []
        for q, s in enumerate(submissions, first_q):
            record = self._audit_log.chain(connection, s.mesh).add(
                "send", s.sender, s.to, details(priority=s.priority, size_class=size_class(s.size)), now
            )
            records.append(record)
            address = (s.mesh, s.to)
            self._usages.count(address, 1, s.size)
            leased = (
                s.lease is not None
                and (s.not_before is None or s.not_before <= now)
                and bool(self._leases.take(address, s.lease, (q,)))
            )
            answers.append(Stored(q, False, leased, record.id, record.hash, now))
        self._audit_log.insert(connection, records)
        return answers

    def _first_answers(self, connection: sqlite3.Connection, submissions: Sequence[Submission]) -> dict[_Key, Stored]:
        refs = self._refs(connection, submissions)
        wanted = [(refs[s.mesh, s.to], refs[s.mesh, s.sender], s.id) for s in submissions]
        answers = {}
        for index, q, n, accepted_at in connection.execute(_FIRST_ANSWERS, (_to_json(wanted).decode(),)).fetchall():
            submission = submissions[index]
            row_hash = hash_of(connection, submission.mesh, n)
            answers[_key(submission)] = Stored(q, True, False, n, row_hash, accepted_at)
        return answers

    def _refs(self, connection: sqlite3.Connection, submissions: Sequence[Submission]) -> dict[Address, int]:
        return self._addresses.obtain(
            connection, [address for s in submissions for address in ((s.mesh, s.to), (s.mesh, s.sender))]
        )

    # Lease

    def lease(
        self, connection: sqlite3.Connection, address: Address, leased: list[int], link: LinkId, limit: int
    ) -> list[Leased]:
        """Lease the oldest rows that nobody has. On the reader's thread.

        Args:
            leased: What was leased before this snapshot was taken: a row that was acknowledged meanwhile
                may still be in it, and its lease was ended only after the deletion was committed.
        """
        ref = self._addresses.find(connection, address)
        if ref is None:
            return []
        rows: list[Leased] = []
        while len(rows) < limit:
            taken = _to_json({*leased, *self._leases.of(address)}).decode()
            found = connection.execute(_LEASABLE, (ref, taken, limit - len(rows))).fetchall()
            # Between the two reads the writer may have leased some of them: `take` has the last word.
            mine = self._leases.take(address, link, [row[0] for row in found])
            if mine is None:
                break
            rows.extend(Leased(*row) for row in found if row[0] in mine)
            if len(mine) == len(found):
                break
        return rows

    def waiting(self, connection: sqlite3.Connection, addresses: Sequence[Address]) -> list[Address]:
        """Which mailboxes hold a row that is leasable. On the reader's thread."""
        return [address for address in addresses if self._has_leasable(connection, address)]

    def has_due(self, now: UnixMillis) -> bool:
        """Whether scheduled rows have come due that are not leasable yet. On any thread."""
        return self._next_scheduled is not None and self._next_scheduled <= now

    def release_due(self, connection: sqlite3.Connection, now: UnixMillis) -> None:
        """Make scheduled rows leasable whose time has come."""
        connection.execute(_RELEASE_DUE, (now,))
        self._next_scheduled = connection.execute(_NEXT_SCHEDULED).fetchone()[0]

    def _has_leasable(self, connection: sqlite3.Connection, address: Address) -> bool:
        taken = _to_json(self._leases.of(address)).decode()
        return (
            connection.execute(_HAS_LEASABLE, (self._addresses.find(connection, address), taken)).fetchone() is not None
        )

    # Acknowledge

    def acknowledge(
        self, connection: sqlite3.Connection, acks: Sequence[Acknowledgement], now: UnixMillis
    ) -> list[int]:
        """Delete what was acknowledged; returns how many rows each of `acks` deleted."""
        wanted = _to_json([q for ack in acks for q in ack.qs]).decode()
        found = {
            q: (ref, size, shared)
            for q, ref, size, shared in _from_json(connection.execute(_FIND, (wanted,)).fetchone()[0])
        }
        records, counts = [], []
        deleted: dict[int, int | None] = {}
        for ack in acks:
            address = (ack.mesh, ack.peer)
            ref = self._addresses.find(connection, address)
            mine = {q: found.pop(q) for q in ack.qs if q in found and found[q][0] == ref}
            if mine:
                self._usages.count(address, -len(mine), -sum(size for _, size, _ in mine.values()))
                chain = self._audit_log.chain(connection, ack.mesh)
                records.append(chain.add("acknowledge", ack.peer, None, details(count=len(mine)), now))
                deleted.update((q, shared) for q, (_, _, shared) in mine.items())
            counts.append(len(mine))
        if deleted:
            remove(connection, deleted)
            self._audit_log.insert(connection, records)
        return counts


def next_due(connection: sqlite3.Connection, now: UnixMillis) -> UnixMillis | None:
    """The earliest `not_before` after `now`."""
    found: UnixMillis | None = connection.execute(_NEXT_DUE, (now,)).fetchone()[0]
    return found


def due(connection: sqlite3.Connection, after: UnixMillis, until: UnixMillis) -> list[Address]:
    """Mailboxes with rows whose `not_before` lies in (after, until]."""
    return [(mesh, peer) for mesh, peer in connection.execute(_DUE, (after, until)).fetchall()]


def remove(connection: sqlite3.Connection, rows: Mapping[int, int | None]) -> None:
    """Delete rows, given with the payload that each shares, and payloads that none is left of."""
    connection.execute(_DELETE, (_to_json(list(rows)).decode(),))
    shared = {ref for ref in rows.values() if ref is not None}
    if shared:
        connection.execute(_DELETE_UNSHARED, (_to_json(list(shared)).decode(),))


def _repeated(answer: Stored) -> Stored:
    return Stored(answer.q, True, False, answer.audit_n, answer.audit_hash, answer.accepted_at)


def _key(submission: Submission) -> _Key:
    return submission.mesh, submission.to, submission.sender, submission.id
