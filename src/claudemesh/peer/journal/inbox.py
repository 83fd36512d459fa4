"""Rows of the inbox, of receipts that are due, of nacks that were sent, and counts of what was refused."""

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from claudemesh.types import ChannelId, MeshId, MessageId, PeerId, SessionId, UnixMillis


class InboxDraft(NamedTuple):
    """An opened, verified message, before it is durable."""

    message_id: MessageId
    sender: PeerId
    session: SessionId | None
    """The session of ours that it was addressed to, if it was to one."""
    reply_to: MessageId | None
    frame: bytes
    signature: bytes
    attestation: str
    accepted_at: UnixMillis
    received_at: UnixMillis
    seen_at: UnixMillis | None = None
    channel: ChannelId | None = None
    gap: int = 0
    is_stale: bool = False
    teller: PeerId | None = None
    """Who shared it from its history, if it did not come by itself."""
    rank: int = 1
    """How urgent it was taken to be: 0 `now`, 1 `next`, 2 `low`."""
    is_ack: bool = False
    """An acknowledgement, for which nobody is woken."""


class InboxRow(NamedTuple):
    """A row as stored."""

    id: int
    message_id: MessageId
    sender: PeerId
    session: SessionId | None
    reply_to: MessageId | None
    frame: bytes
    signature: bytes
    attestation: str
    accepted_at: UnixMillis
    received_at: UnixMillis
    seen_at: UnixMillis | None
    channel: ChannelId | None
    gap: int
    is_stale: bool
    teller: PeerId | None


class ReceiptDue(NamedTuple):
    """A stage that the sender of a message is to be told; `session` signs it, if not the daemon's."""

    sender: PeerId
    message_id: MessageId
    stage: str
    at: UnixMillis
    session: SessionId | None = None
    detail: str = ""


class QuarantineRow(NamedTuple):
    """How many envelopes of a sender were refused with a code, and when."""

    code: str
    sender: str
    envelopes: int
    first_at: UnixMillis
    last_at: UnixMillis


def add(connection: sqlite3.Connection, mesh: MeshId, draft: InboxDraft) -> int | None:
    """Store a message; returns its row number, or None when the same id of the same sender is stored already."""
    cursor = connection.execute(
        "INSERT OR IGNORE INTO inbox (mesh, message_id, sender, session, reply_to, frame, signature, attestation,"
        " accepted_at, received_at, seen_at, channel, gap, is_stale, teller, rank, is_ack)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (mesh, *draft),
    )
    return cursor.lastrowid if cursor.rowcount else None


def holds(connection: sqlite3.Connection, mesh: MeshId, sender: str, message_id: str) -> bool:
    """Whether the message is in the inbox."""
    found = connection.execute(
        "SELECT 1 FROM inbox WHERE mesh = ? AND sender = ? AND message_id = ?", (mesh, sender, message_id)
    )
    return found.fetchone() is not None


def load_unseen(
    connection: sqlite3.Connection, mesh: MeshId, session: SessionId | None, after: int, limit: int
) -> list[InboxRow]:
    """Messages that no reader took, from row `after` on, in the order of arrival.

    Args:
        session: Also those addressed to this session; those addressed to the peer are for every reader.
            None takes all of them.
    """
    rows = connection.execute(
        "SELECT * FROM inbox_rows WHERE mesh = ? AND id > ? AND seen_at IS NULL"
        " AND (? IS NULL OR session IS NULL OR session = ?) ORDER BY id LIMIT ?",
        (mesh, after, session, session, limit),
    )
    return [_row(row) for row in rows]


def load_latest(connection: sqlite3.Connection, mesh: MeshId, limit: int) -> list[InboxRow]:
    """The last `limit` messages, seen or not, in the order of arrival."""
    rows = connection.execute(
        "SELECT * FROM inbox_rows WHERE mesh = ? ORDER BY id DESC LIMIT ?",
        (mesh, limit),
    )
    return [_row(row) for row in rows][::-1]


def load_since(connection: sqlite3.Connection, mesh: MeshId, since: UnixMillis, limit: int) -> list[InboxRow]:
    """Messages that came after `since`, in the order of arrival; at most the last `limit` rows are looked at."""
    rows = connection.execute(
        "SELECT * FROM inbox_rows WHERE mesh = ? AND received_at > ?"
        " AND id > (SELECT coalesce(max(id), 0) FROM inbox) - ? ORDER BY id",
        (mesh, since, limit),
    )
    return [_row(row) for row in rows]


def load_after(connection: sqlite3.Connection, mesh: MeshId, after: int, limit: int) -> list[InboxRow]:
    """Messages after row `after`, seen or not, in the order of arrival."""
    rows = connection.execute(
        "SELECT * FROM inbox_rows WHERE mesh = ? AND id > ? ORDER BY id LIMIT ?",
        (mesh, after, limit),
    )
    return [_row(row) for row in rows]


def find(connection: sqlite3.Connection, mesh: MeshId, message_id: str) -> list[InboxRow]:
    """The received messages with this id."""
    rows = connection.execute(
        "SELECT * FROM inbox_rows WHERE mesh = ? AND message_id = ? ORDER BY id",
        (mesh, message_id),
    )
    return [_row(row) for row in rows]


def find_row(connection: sqlite3.Connection, mesh: MeshId, row_id: int) -> InboxRow | None:
    """One row by its number."""
    found = connection.execute("SELECT * FROM inbox_rows WHERE mesh = ? AND id = ?", (mesh, row_id)).fetchone()
    return _row(found) if found is not None else None


def find_of_any(
    connection: sqlite3.Connection, mesh: MeshId, senders: Sequence[PeerId], message_id: MessageId
) -> InboxRow | None:
    """The received message with this id, of one of these senders: one lookup for each of them."""
    for sender in senders:
        row = connection.execute(
            "SELECT * FROM inbox_rows WHERE mesh = ? AND sender = ? AND message_id = ?", (mesh, sender, message_id)
        ).fetchone()
        if row is not None:
            return _row(row)
    return None


def find_replies(connection: sqlite3.Connection, mesh: MeshId, message_id: str) -> list[InboxRow]:
    """The received messages that answer `message_id`, the first one first."""
    rows = connection.execute(
        "SELECT * FROM inbox_rows WHERE mesh = ? AND reply_to = ? ORDER BY id", (mesh, message_id)
    )
    return [_row(row) for row in rows]


def load_of_channel(connection: sqlite3.Connection, mesh: MeshId, channel: ChannelId, limit: int) -> list[InboxRow]:
    """The last `limit` posts of a channel that are kept, in the order in which the broker took them."""
    rows = connection.execute(
        "SELECT * FROM inbox_rows WHERE mesh = ? AND channel = ? ORDER BY accepted_at DESC, id DESC LIMIT ?",
        (mesh, channel, limit),
    )
    return [_row(row) for row in rows][::-1]


def find_ids(connection: sqlite3.Connection, mesh: MeshId, prefix: str, limit: int) -> list[MessageId]:
    """Ids of received messages that begin with `prefix` (hex digits)."""
    rows = connection.execute(
        "SELECT DISTINCT message_id FROM inbox WHERE mesh = ? AND substr(message_id, 1, ?) = ? LIMIT ?",
        (mesh, len(prefix), prefix, limit),
    )
    return [row[0] for row in rows]


def mark_seen(connection: sqlite3.Connection, row_ids: Sequence[int], now: UnixMillis) -> None:
    """A reader took these messages."""
    connection.executemany(
        "UPDATE inbox SET seen_at = ? WHERE id = ? AND seen_at IS NULL", [(now, row_id) for row_id in row_ids]
    )


def count_unseen(connection: sqlite3.Connection, mesh: MeshId) -> int:
    """How many messages no reader took."""
    row = connection.execute("SELECT count(*) FROM inbox WHERE mesh = ? AND seen_at IS NULL", (mesh,)).fetchone()
    return int(row[0])


def add_receipts_due(connection: sqlite3.Connection, mesh: MeshId, receipts: Sequence[ReceiptDue]) -> None:
    """Owe receipts, in the transaction that made them true."""
    connection.executemany(
        "INSERT OR IGNORE INTO receipts_due (mesh, sender, message_id, stage, at, session, detail)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(mesh, *receipt) for receipt in receipts],
    )


def load_receipts_due(connection: sqlite3.Connection, mesh: MeshId, limit: int) -> list[ReceiptDue]:
    """Receipts that are not in the outbox yet, grouped by sender."""
    rows = connection.execute(
        "SELECT sender, message_id, stage, at, session, detail FROM receipts_due"
        " WHERE mesh = ? ORDER BY sender LIMIT ?",
        (mesh, limit),
    )
    return [ReceiptDue(*row) for row in rows]


def drop_receipts_due(connection: sqlite3.Connection, mesh: MeshId, receipts: Sequence[ReceiptDue]) -> None:
    """The receipts are in the outbox."""
    connection.executemany(
        "DELETE FROM receipts_due WHERE mesh = ? AND sender = ? AND message_id = ? AND stage = ?",
        [(mesh, receipt.sender, receipt.message_id, receipt.stage) for receipt in receipts],
    )


def note_nack(connection: sqlite3.Connection, mesh: MeshId, sender: str, message_id: str, now: UnixMillis) -> bool:
    """Remember that a nack is sent; False when one was sent for this message before."""
    cursor = connection.execute(
        "INSERT OR IGNORE INTO nacks_sent (mesh, sender, message_id, at) VALUES (?, ?, ?, ?)",
        (mesh, sender, message_id, now),
    )
    return cursor.rowcount > 0


def drop_old_nacks(connection: sqlite3.Connection, mesh: MeshId, before: UnixMillis) -> None:
    """Forget nacks whose messages cannot arrive any more."""
    connection.execute("DELETE FROM nacks_sent WHERE mesh = ? AND at < ?", (mesh, before))


def quarantine(connection: sqlite3.Connection, mesh: MeshId, code: str, sender: str, now: UnixMillis) -> None:
    """Count an envelope that was refused for good."""
    connection.execute(
        "INSERT INTO quarantine (mesh, code, sender, count, first_at, last_at) VALUES (?, ?, ?, 1, ?, ?)"
        " ON CONFLICT (mesh, code, sender) DO UPDATE SET count = count + 1, last_at = excluded.last_at",
        (mesh, code, sender, now, now),
    )


def load_quarantine(connection: sqlite3.Connection, mesh: MeshId) -> list[QuarantineRow]:
    """What was refused, by code and sender."""
    rows = connection.execute(
        "SELECT code, sender, count, first_at, last_at FROM quarantine WHERE mesh = ? ORDER BY last_at", (mesh,)
    )
    return [QuarantineRow(*row) for row in rows]


def _row(row: tuple[Any, ...]) -> InboxRow:
    return InboxRow._make(row[1:])
