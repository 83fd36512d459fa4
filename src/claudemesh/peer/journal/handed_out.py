"""Rows of sessions that were handed out."""

import sqlite3
from typing import NamedTuple

from claudemesh.types import MeshId, SessionId, UnixMillis


class HandedOutRow(NamedTuple):
    """A session that runs somewhere with a file of ours; its keys are not kept here."""

    session: SessionId
    label: str
    capabilities: str
    """Separated by commas."""
    issued_at: UnixMillis
    expires_at: UnixMillis
    ended_at: UnixMillis
    """0 while it may speak."""


def save(connection: sqlite3.Connection, mesh: MeshId, row: HandedOutRow) -> None:
    """Remember a session."""
    connection.execute(
        "INSERT INTO handed_out (mesh, session, label, capabilities, issued_at, expires_at, ended_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (mesh, *row),
    )


def load(connection: sqlite3.Connection, mesh: MeshId) -> list[HandedOutRow]:
    """Every session, the oldest first."""
    rows = connection.execute(
        "SELECT session, label, capabilities, issued_at, expires_at, ended_at FROM handed_out"
        " WHERE mesh = ? ORDER BY issued_at, session",
        (mesh,),
    )
    return [HandedOutRow(*row) for row in rows]


def end(connection: sqlite3.Connection, mesh: MeshId, session: SessionId, now: UnixMillis) -> None:
    """A session may not speak any more."""
    connection.execute(
        "UPDATE handed_out SET ended_at = ? WHERE mesh = ? AND session = ? AND ended_at = 0", (now, mesh, session)
    )


def load_dead(connection: sqlite3.Connection, mesh: MeshId, now: UnixMillis) -> list[SessionId]:
    """The sessions that were ended before their time, which is not over yet."""
    rows = connection.execute(
        "SELECT session FROM handed_out WHERE mesh = ? AND ended_at > 0 AND expires_at > ? ORDER BY ended_at",
        (mesh, now),
    )
    return [row[0] for row in rows]


def drop_old(connection: sqlite3.Connection, mesh: MeshId, before: UnixMillis) -> None:
    """Forget sessions whose messages cannot arrive any more."""
    connection.execute("DELETE FROM handed_out WHERE mesh = ? AND expires_at < ?", (mesh, before))
