"""Rows of messages that wait for a person, and of what a person decided about agents (docs/spec/holding.md)."""

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from claudemesh.peer.journal import inbox
from claudemesh.peer.journal.inbox import InboxDraft, ReceiptDue
from claudemesh.protocol.delivery import Stage
from claudemesh.protocol.loops import Budget, Hold
from claudemesh.types import ChannelId, MeshId, MessageId, PeerId, SessionId, UnixMillis

MAX_HELD_PER_SENDER: Final = 256
"""What waits for a person is read by a person; further messages of that sender are refused."""


class HeldRow(NamedTuple):
    """A row as stored: the message, and why it waits."""

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
    channel: ChannelId | None
    gap: int
    is_stale: bool
    rank: int
    is_confirmed: bool
    """Whether its sender expects receipts."""
    expires_at: UnixMillis | None
    reason: str
    reached: int
    allowed: int
    refused_at: UnixMillis | None


_COLUMNS: Final = ", ".join(HeldRow._fields)


def add(
    connection: sqlite3.Connection,
    mesh: MeshId,
    draft: InboxDraft,
    hold: Hold,
    *,
    is_confirmed: bool,
    expires_at: UnixMillis | None,
) -> bool:
    """Keep a message for a person, instead of putting it into the inbox.

    Args:
        is_confirmed: Whether its sender expects receipts.

    Returns:
        False where too many of its sender wait, or it is there already.
    """
    (waiting,) = connection.execute(
        "SELECT count(*) FROM held WHERE mesh = ? AND sender = ? AND refused_at IS NULL", (mesh, draft.sender)
    ).fetchone()
    if waiting >= MAX_HELD_PER_SENDER:
        return False
    cursor = connection.execute(
        "INSERT OR IGNORE INTO held (mesh, message_id, sender, session, reply_to, frame, signature, attestation,"
        " accepted_at, received_at, channel, gap, is_stale, rank, is_confirmed, expires_at, reason, reached, allowed)"
        " VALUES (:mesh, :message_id, :sender, :session, :reply_to, :frame, :signature, :attestation,"
        " :accepted_at, :received_at, :channel, :gap, :is_stale, :rank, :is_confirmed, :expires_at, :reason, :reached,"
        " :allowed)",
        {"mesh": mesh, "is_confirmed": is_confirmed, "expires_at": expires_at, **draft._asdict(), **hold._asdict()},
    )
    return cursor.rowcount > 0


def find(connection: sqlite3.Connection, mesh: MeshId, sender: str, message_id: str) -> HeldRow | None:
    """The row of one message, whatever became of it; None when it was never held, or was released."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM held WHERE mesh = ? AND sender = ? AND message_id = ?",  # noqa: S608 - a constant
        (mesh, sender, message_id),
    ).fetchone()
    return None if row is None else HeldRow._make(row)


def load_waiting(connection: sqlite3.Connection, mesh: MeshId) -> list[HeldRow]:
    """What waits for a person, the oldest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM held WHERE mesh = ? AND refused_at IS NULL ORDER BY id",  # noqa: S608 - a constant
        (mesh,),
    )
    return [HeldRow._make(row) for row in rows]


def count_waiting(connection: sqlite3.Connection, mesh: MeshId) -> int:
    """How many messages wait for a person."""
    row = connection.execute("SELECT count(*) FROM held WHERE mesh = ? AND refused_at IS NULL", (mesh,)).fetchone()
    return int(row[0])


def drop(connection: sqlite3.Connection, row_ids: Sequence[int]) -> None:
    """These left: they are in the inbox now, or their time is over."""
    connection.executemany("DELETE FROM held WHERE id = ?", [(row_id,) for row_id in row_ids])


def mark_refused(connection: sqlite3.Connection, row_ids: Collection[int], now: UnixMillis) -> None:
    """A person does not want these: their text goes, their id stays."""
    connection.executemany(
        "UPDATE held SET refused_at = ?, frame = x'', signature = x'' WHERE id = ?",
        [(now, row_id) for row_id in row_ids],
    )


def owe(
    connection: sqlite3.Connection, mesh: MeshId, rows: Sequence[HeldRow], stage: Stage, note: str, now: UnixMillis
) -> None:
    """Owe the senders of these a receipt, where they expect any."""
    due = [ReceiptDue(row.sender, row.message_id, stage, now, detail=note) for row in rows if row.is_confirmed]
    inbox.add_receipts_due(connection, mesh, due)


def drop_overdue(connection: sqlite3.Connection, mesh: MeshId, now: UnixMillis, before: UnixMillis) -> bool:
    """Drop what has expired, or came before `before`, and tell the senders of what waited; False for none."""
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM held WHERE mesh = ? AND (expires_at < ? OR received_at < ?)",  # noqa: S608 - a constant
        (mesh, now, before),
    )
    rows = [HeldRow._make(row) for row in found]
    drop(connection, [row.id for row in rows])
    waiting = [row for row in rows if row.refused_at is None]
    owe(connection, mesh, waiting, Stage.EXPIRED, "", now)
    return bool(waiting)


# Budgets


class BudgetRow(NamedTuple):
    """One decision of a person about how much agents may cause."""

    subject: str
    """Key of a peer or user; empty for everybody."""
    name: Budget
    amount: int


def load_budgets(connection: sqlite3.Connection, mesh: MeshId) -> list[BudgetRow]:
    """Every decision."""
    rows = connection.execute(
        "SELECT subject, name, amount FROM budgets WHERE mesh = ? ORDER BY subject, name", (mesh,)
    )
    return [BudgetRow._make(row) for row in rows]


def save_budgets(connection: sqlite3.Connection, mesh: MeshId, rows: Sequence[BudgetRow], now: UnixMillis) -> None:
    """Decide, in place of what was decided before."""
    connection.executemany(
        "INSERT OR REPLACE INTO budgets (mesh, subject, name, amount, decided_at) VALUES (?, ?, ?, ?, ?)",
        [(mesh, *row, now) for row in rows],
    )


def drop_budgets(connection: sqlite3.Connection, mesh: MeshId, subject: str, name: str) -> None:
    """Decide nothing any more about one budget."""
    connection.execute("DELETE FROM budgets WHERE mesh = ? AND subject = ? AND name = ?", (mesh, subject, name))


# Quiet


def load_quiet(connection: sqlite3.Connection, mesh: MeshId) -> dict[str, UnixMillis]:
    """What is quiet here, and since when: `paused`, `dnd`."""
    return dict(connection.execute("SELECT kind, since FROM quiet WHERE mesh = ?", (mesh,)).fetchall())


def save_quiet(connection: sqlite3.Connection, mesh: MeshId, kind: str, since: UnixMillis | None) -> None:
    """Begin a quiet, or with None end it."""
    if since is None:
        connection.execute("DELETE FROM quiet WHERE mesh = ? AND kind = ?", (mesh, kind))
    else:
        connection.execute("INSERT OR IGNORE INTO quiet (mesh, kind, since) VALUES (?, ?, ?)", (mesh, kind, since))


# What agents did lately


class SentRow(NamedTuple):
    """A message of ours to one peer, or with `peer` empty to a channel."""

    id: MessageId
    root: MessageId | None
    hop: int | None
    peer: PeerId
    session: SessionId | None
    at: UnixMillis


def load_sent(connection: sqlite3.Connection, mesh: MeshId, limit: int) -> list[SentRow]:
    """The last messages that this peer sent, the oldest first."""
    rows: list[tuple[Any, ...]] = connection.execute(
        "SELECT message_id, root, hop, peer, session, created_at FROM outbox"
        " WHERE mesh = ? AND content_type = 'text/plain' ORDER BY id DESC LIMIT ?",
        (mesh, limit),
    ).fetchall()
    rows += connection.execute(
        "SELECT message_id, root, hop, '', session, created_at FROM posts"
        " WHERE mesh = ? AND content_type = 'text/plain' ORDER BY id DESC LIMIT ?",
        (mesh, limit),
    ).fetchall()
    return sorted((SentRow._make(row) for row in rows), key=lambda row: row.at)
