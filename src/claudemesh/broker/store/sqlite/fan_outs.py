"""Channel messages and epochs in SQLite: one payload, a row in each mailbox, one audit row.

The rows of a fan-out go in as one statement over one JSON array, whatever their number (see `many_rows`).
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from claudemesh.broker.audit import details
from claudemesh.broker.store.base import FannedOut, FanOut
from claudemesh.broker.store.sqlite.addresses import Addresses
from claudemesh.broker.store.sqlite.audit_log import AuditLog, hash_of
from claudemesh.broker.store.sqlite.leases import Leases
from claudemesh.broker.store.sqlite.mailboxes import Mailboxes
from claudemesh.broker.store.sqlite.notices import Notices
from claudemesh.broker.store.sqlite.usages import Usages
from claudemesh.protocol.audit_rows import size_class
from claudemesh.types import UnixMillis

_FIRST_ANSWER: Final = """
    SELECT audit_n, accepted_at FROM payloads WHERE sender = ? AND message_id = ? AND channel = ? AND kind = ?
"""
_INSERT_PAYLOAD: Final = """
    INSERT INTO payloads (sender, kind, channel, message_id, attestation, audit_n, accepted_at, payload)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_ROWS: Final = """
    INSERT INTO mailbox (q, recipient, slot, sender, kind, size, scheduled, not_before, expires_at, accepted_at, shared)
    SELECT ?1 + key, json_extract(value, '$[0]'), json_extract(value, '$[1]'), ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10
    FROM json_each(?2)
"""
"""Pairs in one array: two arrays joined by their position would be compared each with each."""
_INSERT_ROWS_WITHOUT_SLOTS: Final = """
    INSERT INTO mailbox (q, recipient, slot, sender, kind, size, scheduled, not_before, expires_at, accepted_at, shared)
    SELECT ?1 + key, value, NULL, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10 FROM json_each(?2)
"""
_to_json: Final = msgspec.json.Encoder().encode


class FanOuts:
    """Stores what goes into many mailboxes. On the writer's thread."""

    def __init__(
        self,
        addresses: Addresses,
        audit_log: AuditLog,
        mailboxes: Mailboxes,
        leases: Leases,
        usages: Usages,
        notices: Notices,
    ) -> None:
        self._addresses = addresses
        self._audit_log = audit_log
        self._mailboxes = mailboxes
        self._leases = leases
        self._usages = usages
        self._notices = notices

    def store(self, connection: sqlite3.Connection, fan_outs: Sequence[FanOut], now: UnixMillis) -> list[FannedOut]:
        """Store each, in order; one that is stored already gets the first answer."""
        return [self._first_answer(connection, one) or self._store_new(connection, one, now) for one in fan_outs]

    def _first_answer(self, connection: sqlite3.Connection, one: FanOut) -> FannedOut | None:
        sender = self._addresses.find(connection, (one.mesh, one.sender))
        found = connection.execute(_FIRST_ANSWER, (sender, one.id, one.channel, one.kind)).fetchone()
        if found is None:
            return None
        n, accepted_at = found
        return FannedOut((), (), True, n, hash_of(connection, one.mesh, n), accepted_at)

    def _store_new(self, connection: sqlite3.Connection, one: FanOut, now: UnixMillis) -> FannedOut:
        told = details(priority=one.priority, size_class=size_class(one.size), count=len(one.recipients))
        record = self._audit_log.chain(connection, one.mesh).add(one.kind, one.sender, None, told, now)
        self._audit_log.insert(connection, [record])
        if not one.recipients:
            return FannedOut((), (), False, record.id, record.hash, now)
        qs = self._insert(connection, one, record.id, now)
        addresses = [(one.mesh, recipient.peer) for recipient in one.recipients]
        for address in addresses:
            self._usages.count(address, 1, one.size)
        self._notices.put(connection, one.notices, now)
        if one.not_before is not None and one.not_before > now:
            return FannedOut(qs, [False] * len(qs), False, record.id, record.hash, now)
        links = (recipient.lease for recipient in one.recipients)
        leased = self._leases.take_each(zip(addresses, links, qs, strict=True))
        return FannedOut(qs, leased, False, record.id, record.hash, now)

    def _insert(self, connection: sqlite3.Connection, one: FanOut, audit_n: int, now: UnixMillis) -> range:
        peers = [recipient.peer for recipient in one.recipients]
        refs = self._addresses.obtain(connection, [(one.mesh, peer) for peer in (one.sender, *peers)])
        sender = refs[one.mesh, one.sender]
        shared = connection.execute(
            _INSERT_PAYLOAD,
            (sender, one.kind, one.channel, one.id, one.attestation, audit_n, now, one.payload),
        ).lastrowid
        due_at = one.not_before
        scheduled = due_at is not None and due_at > now
        if due_at is not None and scheduled:
            self._mailboxes.schedule(due_at)
        first_q = self._mailboxes.number(len(peers))
        common = (sender, one.kind, one.size, scheduled, due_at, one.expires_at, now, shared)
        if one.kind == "epoch":
            pairs = [(refs[one.mesh, recipient.peer], recipient.slot) for recipient in one.recipients]
            connection.execute(_INSERT_ROWS, (first_q, _to_json(pairs).decode(), *common))
        else:
            recipients = [refs[one.mesh, peer] for peer in peers]
            connection.execute(_INSERT_ROWS_WITHOUT_SLOTS, (first_q, _to_json(recipients).decode(), *common))
        return range(first_q, first_q + len(peers))
