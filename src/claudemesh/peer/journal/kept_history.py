"""What members shared of a channel's history, kept until the epoch that opens it is here."""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from claudemesh.types import ChannelId, Digest, MeshId, PeerId, UnixMillis


class KeptRow(NamedTuple):
    """One message of a sharer; `body` as it came."""

    id: int
    sharer: PeerId
    scope: ChannelId
    epoch: Digest
    content_type: str
    body: bytes


def keep(connection: sqlite3.Connection, mesh: MeshId, row: KeptRow, most: int, now: UnixMillis) -> bool:
    """Keep one message (its `id` is not used); False when `most` of that sharer are kept already."""
    (count,) = connection.execute(
        "SELECT count(*) FROM kept_history WHERE mesh = ? AND sharer = ?", (mesh, row.sharer)
    ).fetchone()
    if count >= most:
        return False
    connection.execute(
        "INSERT INTO kept_history (mesh, sharer, scope, epoch, content_type, body, kept_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (mesh, *row[1:], now),
    )
    return True


def load(connection: sqlite3.Connection, mesh: MeshId) -> list[KeptRow]:
    """Everything that is kept, in the order in which it came."""
    rows = connection.execute(
        "SELECT id, sharer, scope, epoch, content_type, body FROM kept_history WHERE mesh = ? ORDER BY id", (mesh,)
    )
    return [KeptRow._make(row) for row in rows]


def drop(connection: sqlite3.Connection, rows: Sequence[int]) -> None:
    """These were judged."""
    connection.executemany("DELETE FROM kept_history WHERE id = ?", [(row,) for row in rows])


def drop_old(connection: sqlite3.Connection, mesh: MeshId, before: UnixMillis) -> None:
    """Forget what was kept before `before`: nobody will hand over its epoch any more."""
    connection.execute("DELETE FROM kept_history WHERE mesh = ? AND kept_at < ?", (mesh, before))
