"""Rows that leave their mailbox without an acknowledgement: expired, or their peer was revoked or left a channel."""

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from claudemesh.broker.audit import details
from claudemesh.broker.store.base import Expired, Kind, Notice, Undelivered
from claudemesh.broker.store.postgres.addresses import Address
from claudemesh.broker.store.postgres.mailboxes import remove
from claudemesh.broker.store.postgres.notices import Notices
from claudemesh.broker.store.postgres.transaction import Transaction
from claudemesh.broker.store.postgres.usages import Usages
from claudemesh.protocol.audit_rows import Reason
from claudemesh.types import ChannelId, MeshId, MessageId, PeerId, UnixMillis

EXPIRED_MESHES: Final = """
    SELECT DISTINCT mesh_id FROM (SELECT recipient FROM mailbox WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2) m
    JOIN peers ON ref = recipient
"""
"""Which meshes have rows that have expired: those that `Removals.expire` has to hold."""
_EXPIRED: Final = """
    SELECT recipient, q, m.kind, size, m.message_id, r.mesh_id, r.peer_id, s.peer_id, shared
    FROM mailbox m JOIN peers r ON r.ref = recipient JOIN peers s ON s.ref = m.sender
    WHERE expires_at <= $1 AND r.mesh_id = ANY ($3::text[]) ORDER BY expires_at, q LIMIT $2 FOR UPDATE OF m SKIP LOCKED
"""
_ALL_OF_ONE: Final = """
    SELECT recipient, q, m.kind, size, m.message_id, r.mesh_id, r.peer_id, s.peer_id, shared
    FROM mailbox m JOIN peers r ON r.ref = recipient JOIN peers s ON s.ref = m.sender
    WHERE r.mesh_id = $1 AND r.peer_id = $2 ORDER BY q
"""
_ONE_CHANNEL: Final = """
    SELECT recipient, q, m.kind, size, m.message_id, r.mesh_id, r.peer_id, s.peer_id, shared
    FROM mailbox m JOIN peers r ON r.ref = recipient JOIN peers s ON s.ref = m.sender JOIN payloads p ON p.ref = shared
    WHERE r.mesh_id = $1 AND r.peer_id = $2 AND channel = $3 ORDER BY q
"""
_SENT: Final = """
    WITH own AS (SELECT ref FROM peers WHERE mesh_id = $1 AND peer_id = $2)
    SELECT recipient, q, m.kind, size, m.message_id, r.mesh_id, r.peer_id, $2, shared
    FROM (
        SELECT l.* FROM own, peers p CROSS JOIN LATERAL (
            SELECT * FROM mailbox
            WHERE recipient = p.ref AND sender = own.ref AND kind = 'dm' AND shared IS NULL LIMIT $3
        ) l WHERE p.mesh_id = $1
        UNION ALL
        SELECT m.* FROM own JOIN payloads p ON p.sender = own.ref AND p.kind = 'post' JOIN mailbox m ON shared = p.ref
        LIMIT $3
    ) m JOIN peers r ON r.ref = recipient
"""
"""By recipient, or by payload: there is no index of rows by their sender alone."""
_FORGET_PEER: Final = "DELETE FROM subscriptions WHERE mesh_id = $1 AND peer_id = $2"
_FORGET_SUBSCRIPTION: Final = "DELETE FROM subscriptions WHERE mesh_id = $1 AND peer_id = $2 AND channel = $3"


class Removals:
    """Deletes rows, audits that, and tells the senders of direct messages."""

    def __init__(self, notices: Notices, usages: Usages) -> None:
        self._notices = notices
        self._usages = usages

    async def expire(
        self, transaction: Transaction, meshes: Sequence[MeshId], now: UnixMillis, limit: int, notice: Notice
    ) -> Expired:
        """Delete rows of `meshes` whose time has passed, and tell the senders of direct messages."""
        rows = [_Row(*row) for row in await transaction.fetch(_EXPIRED, now, limit, meshes)]
        letters = await self._delete(transaction, rows, now, notice)
        for item in letters:
            transaction.record(item.mesh, "expire", item.sender, item.to, details(reason="expired"), now)
        fanned_out = Counter((row.mesh, row.sender) for row in rows if row.shared is not None)
        for (mesh, sender), count in fanned_out.items():
            transaction.record(mesh, "expire", sender, None, details(count=count, reason="expired"), now)
        return Expired(len(rows), letters)

    async def drop(
        self, transaction: Transaction, address: Address, now: UnixMillis, notice: Notice
    ) -> list[Undelivered]:
        """Delete the mailbox of a revoked peer, and tell the senders of direct messages."""
        rows = [_Row(*row) for row in await transaction.fetch(_ALL_OF_ONE, *address)]
        lost = await self._delete(transaction, rows, now, notice)
        if await transaction.execute(_FORGET_PEER, *address):
            transaction.mesh(address[0]).count_wish()
        _record_drop(transaction, address, len(rows), "revoked", now)
        return lost

    async def _remove(self, transaction: Transaction, rows: Sequence["_Row"]) -> None:
        await remove(transaction, [(row.recipient, row.q) for row in rows])
        for row in rows:
            self._usages.count((row.mesh, row.to), -1, -row.size)

    async def drop_sent(self, transaction: Transaction, address: Address, now: UnixMillis, limit: int) -> int:
        """Delete what a revoked peer has sent, but for epochs."""
        mesh, peer = address
        rows = [_Row(*row) for row in await transaction.fetch(_SENT, mesh, peer, limit)]
        await self._remove(transaction, rows)
        if rows:
            transaction.record(mesh, "drop", peer, None, details(count=len(rows), reason="revoked"), now)
        return len(rows)

    async def drop_channel(
        self, transaction: Transaction, address: Address, channel: ChannelId, now: UnixMillis
    ) -> int:
        """Delete what waits for a peer of a channel that it has left."""
        rows = [_Row(*row) for row in await transaction.fetch(_ONE_CHANNEL, *address, channel)]
        await self._remove(transaction, rows)
        if await transaction.execute(_FORGET_SUBSCRIPTION, *address, channel):
            transaction.mesh(address[0]).count_wish()
        _record_drop(transaction, address, len(rows), "left", now)
        return len(rows)

    async def _delete(
        self, transaction: Transaction, rows: Sequence["_Row"], now: UnixMillis, notice: Notice
    ) -> list[Undelivered]:
        await self._remove(transaction, rows)
        lost = [Undelivered(row.mesh, row.to, row.sender, row.id) for row in rows if row.kind == "dm"]
        await self._notices.put(transaction, [(item, notice(item)) for item in lost], now)
        return lost


class _Row(NamedTuple):
    """One mailbox row that is about to be deleted."""

    recipient: int
    q: int
    kind: Kind
    size: int
    id: MessageId
    """Null for a row with a shared payload, which has the id."""
    mesh: MeshId
    to: PeerId
    sender: PeerId
    shared: int | None


def _record_drop(transaction: Transaction, address: Address, count: int, reason: Reason, now: UnixMillis) -> None:
    if count:
        told = details(count=count, reason=reason)
        transaction.record(address[0], "drop", None, address[1], told, now)
