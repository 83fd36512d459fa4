"""Rows of cards, attestations and replay windows."""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from claudemesh.crypto.statements import Statement
from claudemesh.protocol.replay import ReplayWindow
from claudemesh.types import Digest, MeshId, PeerId, SessionId, UnixMillis

_statement_decoder = msgspec.json.Decoder(Statement)


class WindowRow(NamedTuple):
    """The replay window of one session, kept until its messages cannot arrive any more."""

    session: SessionId
    window: ReplayWindow
    keep_until: UnixMillis


def load_cards(connection: sqlite3.Connection, mesh: MeshId) -> list[Statement]:
    """The newest verified card of every member that had one."""
    rows = connection.execute("SELECT statement FROM cards WHERE mesh = ?", (mesh,))
    return [_statement_decoder.decode(row[0]) for row in rows]


def save_card(connection: sqlite3.Connection, mesh: MeshId, member: PeerId, number: int, card: Statement) -> None:
    """Store a card unless a higher one is stored."""
    connection.execute(
        "INSERT INTO cards (mesh, member, number, statement) VALUES (?, ?, ?, ?) ON CONFLICT (mesh, member)"
        " DO UPDATE SET number = excluded.number, statement = excluded.statement WHERE excluded.number > number",
        (mesh, member, number, msgspec.json.encode(card)),
    )


def save_attestation(
    connection: sqlite3.Connection, mesh: MeshId, digest: Digest, expires_at: UnixMillis, statement: Statement
) -> None:
    """Store an attestation under its digest."""
    connection.execute(
        "INSERT OR IGNORE INTO attestations (mesh, digest, expires_at, statement) VALUES (?, ?, ?, ?)",
        (mesh, digest, expires_at, msgspec.json.encode(statement)),
    )


def load_attestation(connection: sqlite3.Connection, mesh: MeshId, digest: str) -> Statement | None:
    """The attestation with this digest."""
    row = connection.execute(
        "SELECT statement FROM attestations WHERE mesh = ? AND digest = ?", (mesh, digest)
    ).fetchone()
    return None if row is None else _statement_decoder.decode(row[0])


def load_windows(connection: sqlite3.Connection, mesh: MeshId) -> list[WindowRow]:
    """Every replay window of the mesh."""
    rows = connection.execute("SELECT session, highest, bitmap, keep_until FROM replay_windows WHERE mesh = ?", (mesh,))
    return [WindowRow(row[0], ReplayWindow.from_row(row[1], row[2]), row[3]) for row in rows]


def save_windows(connection: sqlite3.Connection, mesh: MeshId, rows: Sequence[WindowRow]) -> None:
    """Store windows together with the messages that moved them."""
    connection.executemany(
        "INSERT INTO replay_windows (mesh, session, highest, bitmap, keep_until) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (mesh, session) DO UPDATE SET highest = excluded.highest, bitmap = excluded.bitmap,"
        " keep_until = max(keep_until, excluded.keep_until)",
        [(mesh, row.session, *row.window.to_row(), row.keep_until) for row in rows],
    )


def note_loss(connection: sqlite3.Connection, mesh: MeshId, now: UnixMillis) -> None:
    """Remember that windows may be missing here of what was received before `now`."""
    connection.execute("INSERT OR REPLACE INTO memory (mesh, since) VALUES (?, ?)", (mesh, now))


def load_memory(connection: sqlite3.Connection, mesh: MeshId) -> UnixMillis:
    """Since when no window is missing; 0 when none ever was."""
    row = connection.execute("SELECT since FROM memory WHERE mesh = ?", (mesh,)).fetchone()
    return UnixMillis(0 if row is None else row[0])


def drop_expired_windows(connection: sqlite3.Connection, mesh: MeshId, now: UnixMillis) -> None:
    """Forget windows whose sessions ended longer ago than a message may live."""
    connection.execute("DELETE FROM replay_windows WHERE mesh = ? AND keep_until < ?", (mesh, now))
