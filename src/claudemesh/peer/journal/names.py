"""Rows of profiles and pinned names."""

import sqlite3

from claudemesh.types import MeshId, PeerId, UnixMillis, UserId


def load_profiles(connection: sqlite3.Connection, mesh: MeshId) -> dict[PeerId, bytes]:
    """The newest profile of every peer that sent one, as its checked bytes."""
    rows = connection.execute("SELECT member, content FROM profiles WHERE mesh = ?", (mesh,))
    return {row[0]: row[1] for row in rows}


def save_profile(connection: sqlite3.Connection, mesh: MeshId, member: PeerId, content: bytes) -> None:
    """Replace a peer's profile."""
    connection.execute(
        "INSERT INTO profiles (mesh, member, content) VALUES (?, ?, ?)"
        " ON CONFLICT (mesh, member) DO UPDATE SET content = excluded.content",
        (mesh, member, content),
    )


def load_pins(connection: sqlite3.Connection, mesh: MeshId) -> list[tuple[str, UserId]]:
    """Every (name, user) pair that was ever seen, the first user of a name first."""
    rows = connection.execute("SELECT name, user FROM pins WHERE mesh = ? ORDER BY pinned_at, user", (mesh,))
    return [(row[0], row[1]) for row in rows]


def pin(connection: sqlite3.Connection, mesh: MeshId, name: str, user: UserId, now: UnixMillis) -> None:
    """Pin a name to a user at first sight; a second user of it is pinned beside, and the name is ambiguous."""
    connection.execute(
        "INSERT OR IGNORE INTO pins (mesh, name, user, pinned_at) VALUES (?, ?, ?, ?)", (mesh, name, user, now)
    )


def unpin(connection: sqlite3.Connection, mesh: MeshId, name: str, user: UserId) -> None:
    """A person decided that this user does not bear this name."""
    connection.execute("DELETE FROM pins WHERE mesh = ? AND name = ? AND user = ?", (mesh, name, user))


def load_profiles_sent(connection: sqlite3.Connection, mesh: MeshId) -> dict[PeerId, str]:
    """Which version (digest) of the own profile each peer was sent."""
    rows = connection.execute("SELECT member, digest FROM profiles_sent WHERE mesh = ?", (mesh,))
    return dict(rows.fetchall())


def save_profile_sent(connection: sqlite3.Connection, mesh: MeshId, member: PeerId, digest: str) -> None:
    """The peer's copy of the profile is in the outbox."""
    connection.execute(
        "INSERT INTO profiles_sent (mesh, member, digest) VALUES (?, ?, ?)"
        " ON CONFLICT (mesh, member) DO UPDATE SET digest = excluded.digest",
        (mesh, member, digest),
    )


def forget_profiles_sent(connection: sqlite3.Connection, mesh: MeshId) -> None:
    """This device is another peer now: nobody knows what it is called."""
    connection.execute("DELETE FROM profiles_sent WHERE mesh = ?", (mesh,))
