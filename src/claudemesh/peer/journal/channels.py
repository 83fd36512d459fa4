"""Rows of channels: names, subscriptions, replay windows, and how much of their history is kept."""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from claudemesh.protocol.replay import ReplayWindow
from claudemesh.types import ChannelId, MeshId, PeerId, SessionId, UnixMillis


class NameRow(NamedTuple):
    """What a channel is called, and by whose word."""

    channel: ChannelId
    name: str
    topic: str
    teller: PeerId
    named_at: UnixMillis
    """By the teller's clock."""
    known_at: UnixMillis
    """By our own, and since when this peer knows it."""
    announced: bool = True
    """False while a name of our own has not been told to the others."""


class ChannelWindowRow(NamedTuple):
    """The replay window of one session in one channel."""

    session: SessionId
    channel: ChannelId
    window: ReplayWindow
    keep_until: UnixMillis


def load_names(connection: sqlite3.Connection, mesh: MeshId) -> list[NameRow]:
    """Every name that is known."""
    rows = connection.execute(
        "SELECT channel, name, topic, teller, named_at, known_at, announced FROM channel_names WHERE mesh = ?", (mesh,)
    )
    return [NameRow._make((*row[:6], bool(row[6]))) for row in rows]


def save_name(connection: sqlite3.Connection, mesh: MeshId, row: NameRow) -> None:
    """Store or replace a name."""
    connection.execute(
        "INSERT INTO channel_names (mesh, channel, name, topic, teller, named_at, known_at, announced)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (mesh, channel) DO UPDATE SET name = excluded.name,"
        " topic = excluded.topic, teller = excluded.teller, named_at = excluded.named_at, known_at = excluded.known_at,"
        " announced = excluded.announced",
        (mesh, *row),
    )


def drop_name(connection: sqlite3.Connection, mesh: MeshId, channel: ChannelId) -> None:
    """The channel was not made after all."""
    connection.execute("DELETE FROM channel_names WHERE mesh = ? AND channel = ?", (mesh, channel))


def mark_announced(connection: sqlite3.Connection, mesh: MeshId, channels: Sequence[ChannelId]) -> None:
    """The names are in the outbox."""
    connection.executemany(
        "UPDATE channel_names SET announced = 1 WHERE mesh = ? AND channel = ?",
        [(mesh, channel) for channel in channels],
    )


def load_told(connection: sqlite3.Connection, mesh: MeshId) -> set[tuple[ChannelId, PeerId]]:
    """Whom this peer told which names."""
    rows = connection.execute("SELECT channel, member FROM names_told WHERE mesh = ?", (mesh,))
    return {(ChannelId(row[0]), PeerId(row[1])) for row in rows}


def mark_told(connection: sqlite3.Connection, mesh: MeshId, channel: ChannelId, member: PeerId) -> None:
    """The names are in the outbox, for this member."""
    connection.execute(
        "INSERT OR IGNORE INTO names_told (mesh, channel, member) VALUES (?, ?, ?)", (mesh, channel, member)
    )


def load_subscriptions(connection: sqlite3.Connection, mesh: MeshId) -> dict[ChannelId, bool]:
    """What this peer said that it wants, or does not want."""
    rows = connection.execute("SELECT channel, wanted FROM subscriptions WHERE mesh = ?", (mesh,))
    return {row[0]: bool(row[1]) for row in rows}


def save_subscription(connection: sqlite3.Connection, mesh: MeshId, channel: ChannelId, *, wanted: bool) -> None:
    """Remember whether posts of a channel are wanted."""
    connection.execute(
        "INSERT INTO subscriptions (mesh, channel, wanted) VALUES (?, ?, ?)"
        " ON CONFLICT (mesh, channel) DO UPDATE SET wanted = excluded.wanted",
        (mesh, channel, int(wanted)),
    )


def load_windows(connection: sqlite3.Connection, mesh: MeshId) -> list[ChannelWindowRow]:
    """Every replay window of the mesh's channels."""
    rows = connection.execute(
        "SELECT session, channel, highest, bitmap, keep_until FROM channel_windows WHERE mesh = ?", (mesh,)
    )
    return [ChannelWindowRow(row[0], row[1], ReplayWindow.from_row(row[2], row[3]), row[4]) for row in rows]


def save_windows(connection: sqlite3.Connection, mesh: MeshId, rows: Sequence[ChannelWindowRow]) -> None:
    """Store windows together with the posts that moved them."""
    connection.executemany(
        "INSERT INTO channel_windows (mesh, session, channel, highest, bitmap, keep_until) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (mesh, session, channel) DO UPDATE SET highest = excluded.highest, bitmap = excluded.bitmap,"
        " keep_until = max(keep_until, excluded.keep_until)",
        [(mesh, row.session, row.channel, *row.window.to_row(), row.keep_until) for row in rows],
    )


def drop_expired_windows(connection: sqlite3.Connection, mesh: MeshId, now: UnixMillis) -> None:
    """Forget windows whose sessions ended longer ago than a post may live."""
    connection.execute("DELETE FROM channel_windows WHERE mesh = ? AND keep_until < ?", (mesh, now))


def trim_history(connection: sqlite3.Connection, mesh: MeshId, keep: int, before: UnixMillis) -> None:
    """Drop received and own posts that are older than `before`, and of each channel all but the newest `keep`."""
    connection.execute("DELETE FROM inbox WHERE mesh = ? AND channel IS NOT NULL AND received_at < ?", (mesh, before))
    connection.execute(
        "DELETE FROM posts WHERE mesh = ? AND created_at < ? AND state IN ('accepted', 'refused', 'expired')",
        (mesh, before),
    )
    crowded = connection.execute(
        "SELECT channel FROM inbox WHERE mesh = ? AND channel IS NOT NULL GROUP BY channel HAVING count(*) > ?",
        (mesh, keep),
    ).fetchall()
    for (channel,) in crowded:
        connection.execute(
            "DELETE FROM inbox WHERE mesh = ? AND channel = ? AND id <="
            " (SELECT id FROM inbox WHERE mesh = ? AND channel = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (mesh, channel, mesh, channel, keep),
        )
    connection.execute(
        "DELETE FROM post_recipients WHERE mesh = ?"
        " AND message_id NOT IN (SELECT message_id FROM posts WHERE mesh = ?)",
        (mesh, mesh),
    )
