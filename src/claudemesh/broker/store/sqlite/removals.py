"""Rows that leave their mailbox without an acknowledgement: expired, or their peer was revoked or left a channel."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from claudemesh.broker.audit import details
from claudemesh.broker.store.base import Expired, Kind, Notice, Undelivered
from claudemesh.broker.store.sqlite.addresses import Address, Addresses
from claudemesh.broker.store.sqlite.audit_log import AuditLog
from claudemesh.broker.store.sqlite.mailboxes import remove
from claudemesh.broker.store.sqlite.notices import Notices
from claudemesh.broker.store.sqlite.rosters import count_wish
from claudemesh.broker.store.sqlite.usages import Usages
from claudemesh.protocol.audit_rows import Reason
from claudemesh.types import ChannelId, MeshId, MessageId, PeerId, UnixMillis

_ROW: Final = """
    SELECT q, m.kind, size, m.message_id, r.mesh_id, r.peer_id, s.peer_id, shared
    FROM mailbox m JOIN peers r ON r.ref = recipient JOIN peers s ON s.ref = m.sender
"""
_EXPIRED: Final = _ROW + "WHERE expires_at <= ? ORDER BY expires_at LIMIT ?"
_ALL_OF_ONE: Final = _ROW + "WHERE recipient = ? ORDER BY q"
_ONE_CHANNEL: Final = _ROW + "JOIN payloads p ON p.ref = shared WHERE recipient = ? AND channel = ?"
_SENT: Final = """
    SELECT m.q, m.kind, size, m.message_id, r.mesh_id, r.peer_id, s.peer_id, shared
    FROM (
        SELECT q FROM mailbox WHERE sender = ?1 AND shared IS NULL AND kind = 'dm'
            AND recipient IN (SELECT ref FROM peers WHERE mesh_id = ?2)
        UNION ALL
        SELECT q FROM payloads p JOIN mailbox ON shared = p.ref WHERE p.sender = ?1 AND p.kind = 'post'
        LIMIT ?3
    ) found JOIN mailbox m ON m.q = found.q JOIN peers r ON r.ref = recipient JOIN peers s ON s.ref = m.sender
"""
"""By recipient, or by payload: there is no index of rows by their sender alone."""
_FORGET_PEER: Final = "DELETE FROM subscriptions WHERE mesh_id = ? AND peer_id = ?"
_FORGET_SUBSCRIPTION: Final = "DELETE FROM subscriptions WHERE mesh_id = ? AND peer_id = ? AND channel = ?"


class Removals:
    """Deletes rows, audits that, and tells the senders of direct messages. On the writer's thread."""

    def __init__(self, addresses: Addresses, audit_log: AuditLog, notices: Notices, usages: Usages) -> None:
        self._addresses = addresses
        self._audit_log = audit_log
        self._notices = notices
        self._usages = usages

    def expire(self, connection: sqlite3.Connection, now: UnixMillis, limit: int, notice: Notice) -> Expired:
        """Delete rows whose time has passed, and tell the senders of direct messages."""
        rows = [_Row(*row) for row in connection.execute(_EXPIRED, (now, limit)).fetchall()]
        letters = self._delete(connection, rows, now, notice)
        records = [
            self._audit_log.chain(connection, item.mesh).add(
                "expire", item.sender, item.to, details(reason="expired"), now
            )
            for item in letters
        ]
        fanned_out = Counter((row.mesh, row.sender) for row in rows if row.shared is not None)
        records += [
            self._audit_log.chain(connection, mesh).add(
                "expire", sender, None, details(count=count, reason="expired"), now
            )
            for (mesh, sender), count in fanned_out.items()
        ]
        self._audit_log.insert(connection, records)
        return Expired(len(rows), letters)

    def drop(
        self, connection: sqlite3.Connection, address: Address, now: UnixMillis, notice: Notice
    ) -> list[Undelivered]:
        """Delete the mailbox of a revoked peer, and tell the senders of direct messages."""
        ref = self._addresses.find(connection, address)
        rows = [_Row(*row) for row in connection.execute(_ALL_OF_ONE, (ref,)).fetchall()] if ref is not None else []
        lost = self._delete(connection, rows, now, notice)
        if connection.execute(_FORGET_PEER, address).rowcount:
            count_wish(connection, address[0])
        self._record_drop(connection, address, len(rows), "revoked", now)
        return lost

    def drop_sent(self, connection: sqlite3.Connection, address: Address, now: UnixMillis, limit: int) -> int:
        """Delete what a revoked peer has sent, but for epochs."""
        ref = self._addresses.find(connection, address)
        rows = [_Row(*row) for row in connection.execute(_SENT, (ref, address[0], limit)).fetchall()]
        self._remove(connection, rows)
        if rows:
            chain = self._audit_log.chain(connection, address[0])
            record = chain.add("drop", address[1], None, details(count=len(rows), reason="revoked"), now)
            self._audit_log.insert(connection, [record])
        return len(rows)

    def drop_channel(
        self, connection: sqlite3.Connection, address: Address, channel: ChannelId, now: UnixMillis
    ) -> int:
        """Delete what waits for a peer of a channel that it has left."""
        ref = self._addresses.find(connection, address)
        rows = [_Row(*row) for row in connection.execute(_ONE_CHANNEL, (ref, channel)).fetchall()]
        self._remove(connection, rows)
        if connection.execute(_FORGET_SUBSCRIPTION, (*address, channel)).rowcount:
            count_wish(connection, address[0])
        self._record_drop(connection, address, len(rows), "left", now)
        return len(rows)

    def _record_drop(
        self, connection: sqlite3.Connection, address: Address, count: int, reason: Reason, now: UnixMillis
    ) -> None:
        if count:
            chain = self._audit_log.chain(connection, address[0])
            record = chain.add("drop", None, address[1], details(count=count, reason=reason), now)
            self._audit_log.insert(connection, [record])

    def _delete(
        self, connection: sqlite3.Connection, rows: Sequence["_Row"], now: UnixMillis, notice: Notice
    ) -> list[Undelivered]:
        self._remove(connection, rows)
        lost = [Undelivered(row.mesh, row.to, row.sender, row.id) for row in rows if row.kind == "dm"]
        self._notices.put(connection, [(item, notice(item)) for item in lost], now)
        return lost

    def _remove(self, connection: sqlite3.Connection, rows: Sequence["_Row"]) -> None:
        if rows:
            remove(connection, {row.q: row.shared for row in rows})
        for row in rows:
            self._usages.count((row.mesh, row.to), -1, -row.size)


class _Row(NamedTuple):
    """One mailbox row that is about to be deleted."""

    q: int
    kind: Kind
    size: int
    id: MessageId
    """Null for a row with a shared payload, which has the id."""
    mesh: MeshId
    to: PeerId
    sender: PeerId
    shared: int | None
