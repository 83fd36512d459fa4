"""Rows of grants and blocks."""

import sqlite3
from collections.abc import Sequence

from claudemesh.peer.grants import Rule
from claudemesh.types import MeshId, UnixMillis


def load(connection: sqlite3.Connection, mesh: MeshId) -> list[Rule]:
    """Every decision, the oldest first."""
    rows = connection.execute(
        "SELECT subject, session, permission, is_allowed FROM grants WHERE mesh = ? ORDER BY decided_at, subject",
        (mesh,),
    )
    return [Rule(row[0], row[1], row[2], bool(row[3])) for row in rows]


def save(connection: sqlite3.Connection, mesh: MeshId, rules: Sequence[Rule], now: UnixMillis) -> None:
    """Store decisions, each in place of an earlier one about the same."""
    connection.executemany(
        "INSERT INTO grants (mesh, subject, session, permission, is_allowed, decided_at) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (mesh, subject, session, permission)"
        " DO UPDATE SET is_allowed = excluded.is_allowed, decided_at = excluded.decided_at",
        [(mesh, *rule, now) for rule in rules],
    )


def drop(connection: sqlite3.Connection, mesh: MeshId, rules: Sequence[Rule]) -> None:
    """Forget decisions about these subjects, sessions and permissions."""
    connection.executemany(
        "DELETE FROM grants WHERE mesh = ? AND subject = ? AND session = ? AND permission = ?",
        [(mesh, rule.subject, rule.session, rule.permission) for rule in rules],
    )
