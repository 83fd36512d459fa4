"""Mailboxes in SQLite: append, lease, acknowledge, expire.

A batch is a handful of statements whatever its size (see `many_rows`): lists go in as one JSON array and come
out as one row that holds a JSON array.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from claudemesh.broker.audit import details
from claudemesh.broker.store.base import (
    Acknowledgement,
    Kind,
    Leased,
    LinkId,
    Notice,
    Stored,
    Submission,
    Undelivered,
    Usage,
)
from claudemesh.broker.store.sqlite.addresses import Address, Addresses
from claudemesh.broker.store.sqlite.audit_log import AuditLog, hash_of
from claudemesh.broker.store.sqlite.leases import Leases
from claudemesh.broker.store.sqlite.many_rows import ManyRows
from claudemesh.protocol import limits
from claudemesh.protocol.audit_rows import size_class
from claudemesh.types import MeshId, MessageId, PeerId, UnixMillis

MAX_CACHED_USAGES: Final = 50_000

_INSERT: Final = ManyRows(
    "INSERT OR IGNORE INTO mailbox (q, recipient, sender, message_id, kind, size, scheduled, not_before, expires_at,"
    " accepted_at, attestation, audit_n, payload) SELECT * FROM (VALUES :rows) WHERE column1 IS NOT NULL",
    width=13,
)
_LAST_Q: Final = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'mailbox'"
_UNDO: Final = "DELETE FROM mailbox WHERE q BETWEEN ? AND ?"
_FIRST_ANSWERS: Final = """
    SELECT k.key, m.q, m.audit_n, m.accepted_at
    FROM json_each(?) k CROSS JOIN mailbox m
    WHERE m.recipient = k.value ->> 0 AND m.sender = k.value ->> 1 AND m.message_id = k.value ->> 2 AND m.kind = 'dm'
"""
_LEASABLE: Final = """
    SELECT q, accepted_at, kind, payload, attestation FROM mailbox
    WHERE recipient = ? AND scheduled = 0 AND q NOT IN (SELECT value FROM json_each(?))
    ORDER BY q LIMIT ?
"""
_FIND: Final = """
    SELECT json_group_array(json_array(q, recipient, size)) FROM mailbox
    WHERE q IN (SELECT value FROM json_each(?))
"""
_DELETE: Final = "DELETE FROM mailbox WHERE q IN (SELECT value FROM json_each(?))"
_USAGE: Final = "SELECT count(*), coalesce(sum(size), 0) FROM mailbox WHERE recipient = ?"
_RELEASE_DUE: Final = "UPDATE mailbox SET scheduled = 0 WHERE scheduled = 1 AND not_before <= ?"
_NEXT_SCHEDULED: Final = "SELECT min(not_before) FROM mailbox WHERE scheduled = 1 AND not_before IS NOT NULL"
_NEXT_DUE: Final = "SELECT min(not_before) FROM mailbox WHERE not_before > ?"
_DUE: Final = """
    SELECT DISTINCT mesh_id, peer_id FROM mailbox JOIN peers ON ref = recipient
    WHERE not_before > ? AND not_before <= ?
"""
_ROW: Final = """
    SELECT q, kind, size, message_id, r.mesh_id, r.peer_id, s.peer_id
    FROM mailbox JOIN peers r ON r.ref = recipient JOIN peers s ON s.ref = sender
"""
_EXPIRED: Final = _ROW + "WHERE expires_at <= ? ORDER BY expires_at LIMIT ?"
_ALL_OF_ONE: Final = _ROW + "WHERE recipient = ? ORDER BY q"

_to_json: Final = msgspec.json.Encoder().encode
_from_json: Final = msgspec.json.Decoder(list[tuple[int, int, int]]).decode

_Key = tuple[MeshId, PeerId, PeerId, MessageId]


class Mailboxes:
    """Every mailbox. Methods that take a connection run on the writer's thread, except where they say otherwise."""

    def __init__(self, addresses: Addresses, audit_log: AuditLog, leases: Leases) -> None:
        self._addresses = addresses
        self._audit_log = audit_log
        self._leases = leases
        self._usages: dict[Address, Usage] = {}
        self._next_q = 1
        self._next_scheduled: int | None = None

    def load(self, connection: sqlite3.Connection) -> None:
        """Continue where the last process ended."""
        self._next_q = connection.execute(_LAST_Q).fetchone()[0] + 1
        self._next_scheduled = connection.execute(_NEXT_SCHEDULED).fetchone()[0]

    def forget(self) -> None:
        """Drop what is cached: something was undone or deleted. Numbers that were given out are not used again."""
        self._usages.clear()

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
                self._next_scheduled = min(due_at, self._next_scheduled or due_at)
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
        return _INSERT.execute(connection, rows)

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
            self._count(address, 1, s.size)
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

    def has_due(self, now: UnixMillis) -> bool:
        """Whether scheduled rows have come due that are not leasable yet. On any thread."""
        return self._next_scheduled is not None and self._next_scheduled <= now

    def release_due(self, connection: sqlite3.Connection, now: UnixMillis) -> None:
        """Make scheduled rows leasable whose time has come."""
        connection.execute(_RELEASE_DUE, (now,))
        self._next_scheduled = connection.execute(_NEXT_SCHEDULED).fetchone()[0]

    # Acknowledge

    def acknowledge(
        self, connection: sqlite3.Connection, acks: Sequence[Acknowledgement], now: UnixMillis
    ) -> list[int]:
        """Delete what was acknowledged; returns how many rows each of `acks` deleted."""
        wanted = _to_json([q for ack in acks for q in ack.qs]).decode()
        found = {q: (ref, size) for q, ref, size in _from_json(connection.execute(_FIND, (wanted,)).fetchone()[0])}
        records, counts = [], []
        deleted: list[int] = []
        for ack in acks:
            address = (ack.mesh, ack.peer)
            ref = self._addresses.find(connection, address)
            mine = {q: found.pop(q)[1] for q in ack.qs if q in found and found[q][0] == ref}
            if mine:
                self._count(address, -len(mine), -sum(mine.values()))
                chain = self._audit_log.chain(connection, ack.mesh)
                records.append(chain.add("acknowledge", ack.peer, None, details(count=len(mine)), now))
                deleted.extend(mine)
            counts.append(len(mine))
        if deleted:
            connection.execute(_DELETE, (_to_json(deleted).decode(),))
            self._audit_log.insert(connection, records)
        return counts

    # Expire and drop

    def expire(self, connection: sqlite3.Connection, now: UnixMillis, limit: int, notice: Notice) -> list[Undelivered]:
        """Delete rows whose time has passed, and tell their senders."""
        rows = [_Row(*row) for row in connection.execute(_EXPIRED, (now, limit)).fetchall()]
        lost = self._delete(connection, rows, now, notice)
        records = [
            self._audit_log.chain(connection, item.mesh).add(
                "expire", item.sender, item.to, details(reason="expired"), now
            )
            for item in lost
        ]
        self._audit_log.insert(connection, records)
        return lost

    def drop(
        self, connection: sqlite3.Connection, address: Address, now: UnixMillis, notice: Notice
    ) -> list[Undelivered]:
        """Delete the mailbox of a revoked peer, and tell the senders."""
        ref = self._addresses.find(connection, address)
        rows = [_Row(*row) for row in connection.execute(_ALL_OF_ONE, (ref,)).fetchall()] if ref is not None else []
        lost = self._delete(connection, rows, now, notice)
        if rows:
            chain = self._audit_log.chain(connection, address[0])
            record = chain.add("drop", None, address[1], details(count=len(rows), reason="revoked"), now)
            self._audit_log.insert(connection, [record])
        return lost

    def _delete(
        self, connection: sqlite3.Connection, rows: Sequence["_Row"], now: UnixMillis, notice: Notice
    ) -> list[Undelivered]:
        if not rows:
            return []
        connection.execute(_DELETE, (_to_json([row.q for row in rows]).decode(),))
        for row in rows:
            self._count((row.mesh, row.to), -1, -row.size)
        lost = [Undelivered(row.mesh, row.to, row.sender, row.id) for row in rows if row.kind == "dm"]
        self._notify(connection, lost, now, notice)
        return lost

    def _notify(
        self, connection: sqlite3.Connection, lost: Sequence[Undelivered], now: UnixMillis, notice: Notice
    ) -> None:
        rows = []
        expires_at = now + limits.QUEUE_LIFETIME_MS
        refs = self._addresses.obtain(
            connection, [address for item in lost for address in ((item.mesh, item.sender), (item.mesh, item.to))]
        )
        for item in lost:
            recipient, sender = refs[item.mesh, item.sender], refs[item.mesh, item.to]
            payload = notice(item)
            size = len(payload)
            rows.append(
                (self._next_q, recipient, sender, item.id, "sys", size, 0, None, expires_at, now, None, None, payload)
            )
            self._next_q += 1
            self._count((item.mesh, item.sender), 1, size)
        if _INSERT.execute(connection, rows) != len(rows):
            # A notice about the same message waits already: what was counted is counted anew when it is asked for.
            self._usages.clear()

    # Usage

    def usage(self, address: Address) -> Usage | None:
        """What a mailbox holds, if that is known without asking the database. On any thread."""
        return self._usages.get(address)

    def load_usage(self, connection: sqlite3.Connection, address: Address) -> Usage:
        """Count what a mailbox holds, and keep the count up to date from now on."""
        ref = self._addresses.find(connection, address)
        usage = Usage(*connection.execute(_USAGE, (ref,)).fetchone())
        if len(self._usages) >= MAX_CACHED_USAGES:
            self._usages.clear()
        self._usages[address] = usage
        return usage

    def _count(self, address: Address, rows: int, size: int) -> None:
        usage = self._usages.get(address)
        if usage is not None:
            self._usages[address] = Usage(usage.rows + rows, usage.size + size)


class _Row(NamedTuple):
    """One mailbox row that is about to be deleted."""

    q: int
    kind: Kind
    size: int
    id: MessageId
    mesh: MeshId
    to: PeerId
    sender: PeerId


def next_due(connection: sqlite3.Connection, now: UnixMillis) -> UnixMillis | None:
    """The earliest `not_before` after `now`."""
    found: UnixMillis | None = connection.execute(_NEXT_DUE, (now,)).fetchone()[0]
    return found


def due(connection: sqlite3.Connection, after: UnixMillis, until: UnixMillis) -> list[Address]:
    """Mailboxes with rows whose `not_before` lies in (after, until]."""
    return [(mesh, peer) for mesh, peer in connection.execute(_DUE, (after, until)).fetchall()]


def _repeated(answer: Stored) -> Stored:
    return Stored(answer.q, True, False, answer.audit_n, answer.audit_hash, answer.accepted_at)


def _key(submission: Submission) -> _Key:
    return submission.mesh, submission.to, submission.sender, submission.id
