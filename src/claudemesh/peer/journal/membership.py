"""Rows of the roster, its signed head, freezes, and what was verified of the broker's audit log."""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from claudemesh.crypto.statements import Statement
from claudemesh.protocol.audit_view import AuditView
from claudemesh.protocol.roster import Entry
from claudemesh.types import Digest, MeshId, UnixMillis

_entry_decoder = msgspec.json.Decoder(Entry)
_statement_decoder = msgspec.json.Decoder(Statement)


class Freeze(NamedTuple):
    """Why a mesh is frozen, since when, and the signed statements that prove it."""

    code: str
    at: UnixMillis
    proof: list[Statement]


def load_entries(connection: sqlite3.Connection, mesh: MeshId) -> list[Entry]:
    """The stored roster, from its genesis on."""
    rows = connection.execute("SELECT entry FROM roster_entries WHERE mesh = ? ORDER BY seq", (mesh,))
    return [_entry_decoder.decode(row[0]) for row in rows]


def append_entries(connection: sqlite3.Connection, mesh: MeshId, first_seq: int, entries: Sequence[Entry]) -> None:
    """Store verified entries from `first_seq` on; repeating it changes nothing."""
    connection.executemany(
        "INSERT OR IGNORE INTO roster_entries (mesh, seq, entry) VALUES (?, ?, ?)",
        [(mesh, first_seq + index, msgspec.json.encode(entry)) for index, entry in enumerate(entries)],
    )


def forget_entries(connection: sqlite3.Connection, mesh: MeshId) -> None:
    """Drop the roster of a mesh: it was damaged here and is fetched again."""
    connection.execute("DELETE FROM roster_entries WHERE mesh = ?", (mesh,))
    connection.execute("DELETE FROM heads WHERE mesh = ?", (mesh,))


def load_head(connection: sqlite3.Connection, mesh: MeshId) -> Statement | None:
    """The newest signed head that was verified."""
    row = connection.execute("SELECT statement FROM heads WHERE mesh = ?", (mesh,)).fetchone()
    return None if row is None else _statement_decoder.decode(row[0])


def save_head(connection: sqlite3.Connection, mesh: MeshId, statement: Statement) -> None:
    """Replace the newest signed head."""
    connection.execute(
        "INSERT INTO heads (mesh, statement) VALUES (?, ?)"
        " ON CONFLICT (mesh) DO UPDATE SET statement = excluded.statement",
        (mesh, msgspec.json.encode(statement)),
    )


def load_freeze(connection: sqlite3.Connection, mesh: MeshId) -> Freeze | None:
    """The freeze of a mesh, if it is frozen."""
    row = connection.execute("SELECT code, frozen_at, proof FROM freezes WHERE mesh = ?", (mesh,)).fetchone()
    return None if row is None else Freeze(row[0], row[1], msgspec.json.decode(row[2], type=list[Statement]))


def save_freeze(connection: sqlite3.Connection, mesh: MeshId, freeze: Freeze) -> None:
    """Freeze a mesh; the first proof stays."""
    connection.execute(
        "INSERT OR IGNORE INTO freezes (mesh, code, frozen_at, proof) VALUES (?, ?, ?, ?)",
        (mesh, freeze.code, freeze.at, msgspec.json.encode(freeze.proof)),
    )


class AuditFinding(NamedTuple):
    """What the broker's audit log was found to contradict, and when."""

    code: str
    detail: str
    at: UnixMillis


def add_audit_receipts(connection: sqlite3.Connection, mesh: MeshId, receipts: Sequence[tuple[int, str]]) -> None:
    """Remember rows (number, hash) that the broker acknowledged.

    Two hashes for one row contradict each other: what is kept then matches no row, so that the next check finds it.
    """
    connection.executemany(
        "INSERT INTO audit_receipts (mesh, n, hash) VALUES (?, ?, ?) ON CONFLICT (mesh, n)"
        " DO UPDATE SET hash = 'contradicted' WHERE hash != excluded.hash",
        [(mesh, n, h) for n, h in receipts],
    )


def load_audit_receipts(connection: sqlite3.Connection, mesh: MeshId, first: int, end: int) -> dict[int, str]:
    """The acknowledged rows with numbers from `first` to below `end`."""
    found = connection.execute(
        "SELECT n, hash FROM audit_receipts WHERE mesh = ? AND n >= ? AND n < ?", (mesh, first, end)
    )
    return dict(found.fetchall())


def count_audit_receipts_from(connection: sqlite3.Connection, mesh: MeshId, first: int) -> int:
    """How many acknowledged rows have a number from `first` on."""
    row = connection.execute("SELECT count(*) FROM audit_receipts WHERE mesh = ? AND n >= ?", (mesh, first)).fetchone()
    return int(row[0])


def last_audit_receipt(connection: sqlite3.Connection, mesh: MeshId) -> int:
    """The highest number of an acknowledged row that was not checked yet; -1 when there is none."""
    row = connection.execute("SELECT max(n) FROM audit_receipts WHERE mesh = ?", (mesh,)).fetchone()
    return -1 if row[0] is None else int(row[0])


def first_audit_receipt(connection: sqlite3.Connection, mesh: MeshId) -> int:
    """The lowest number of an acknowledged row that was not checked yet; 2^53 when there is none."""
    row = connection.execute("SELECT min(n) FROM audit_receipts WHERE mesh = ?", (mesh,)).fetchone()
    return 1 << 53 if row[0] is None else int(row[0])


def load_audit_view(connection: sqlite3.Connection, mesh: MeshId) -> AuditView | None:
    """What was verified last."""
    row = connection.execute("SELECT n, head, checkpoint FROM audit_views WHERE mesh = ?", (mesh,)).fetchone()
    if row is None:
        return None
    return AuditView(row[0], Digest(row[1]), None if row[2] is None else _statement_decoder.decode(row[2]))


def save_audit_view(connection: sqlite3.Connection, mesh: MeshId, view: AuditView) -> None:
    """Store what was verified, and drop the receipts that it covers."""
    checkpoint = None if view.checkpoint is None else msgspec.json.encode(view.checkpoint)
    connection.execute(
        "INSERT INTO audit_views (mesh, n, head, checkpoint) VALUES (?, ?, ?, ?) ON CONFLICT (mesh)"
        " DO UPDATE SET n = excluded.n, head = excluded.head, checkpoint = excluded.checkpoint",
        (mesh, view.n, view.head, checkpoint),
    )
    connection.execute("DELETE FROM audit_receipts WHERE mesh = ? AND n < ?", (mesh, view.n))


def restart_audit_view(connection: sqlite3.Connection, mesh: MeshId) -> None:
    """The broker lost its audit log: that is recorded, and what follows is compared with what it says from now on."""
    connection.execute("DELETE FROM audit_views WHERE mesh = ?", (mesh,))
    connection.execute("DELETE FROM audit_receipts WHERE mesh = ?", (mesh,))


def clear_audit_view(connection: sqlite3.Connection, mesh: MeshId) -> None:
    """The mesh moved to another broker, which has an audit log of its own."""
    restart_audit_view(connection, mesh)
    connection.execute("DELETE FROM audit_findings WHERE mesh = ?", (mesh,))


def load_audit_finding(connection: sqlite3.Connection, mesh: MeshId) -> AuditFinding | None:
    """The first contradiction that was found, if any."""
    row = connection.execute("SELECT code, detail, at FROM audit_findings WHERE mesh = ?", (mesh,)).fetchone()
    return None if row is None else AuditFinding(*row)


def save_audit_finding(
    connection: sqlite3.Connection, mesh: MeshId, finding: AuditFinding, proof: list[Statement]
) -> None:
    """Keep a contradiction with the statements that prove it; the first one stays."""
    connection.execute(
        "INSERT OR IGNORE INTO audit_findings (mesh, code, detail, at, proof) VALUES (?, ?, ?, ?, ?)",
        (mesh, *finding, msgspec.json.encode(proof)),
    )
