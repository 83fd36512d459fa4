"""Rows of agents' sessions, and of what was put before each of them (docs/spec/surfacing.md)."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from claudemesh.types import MeshId, SessionId, UnixMillis

IN_DOUBT: Final = "in_doubt"
"""In place of evidence: the host had an offer and began anew before anything showed that it was read."""


class Wanted(NamedTuple):
    """Which messages may be put before one agent's session now."""

    agent: str
    label: str
    others: tuple[str, ...]
    """The other agents' sessions that are open."""
    rank: int
    """The least urgent one: 0 `now`, 1 `next`, 2 `low`."""
    acks: bool


class Told(NamedTuple):
    """What the other peers are told of an agent's session."""

    label: str
    reach: str = "asked"
    about: str = ""
    tags: tuple[str, ...] = ()


class WaitingRow(NamedTuple):
    """A message that waits."""

    id: int
    rank: int
    is_ack: bool
    is_addressed: bool
    """To this session, not to the peer as such."""


class OfferDraft(NamedTuple):
    """A part of a message that is about to be handed over."""

    message: int
    begins: int
    ends: int
    length: int


class Offerer(NamedTuple):
    """For whom, and by which way."""

    agent: str
    session: SessionId
    label: str
    adapter: str


class OfferRow(NamedTuple):
    """A row as stored."""

    id: int
    message: int
    agent: str
    session: SessionId
    label: str
    adapter: str
    begins: int
    ends: int
    length: int
    offered_at: UnixMillis
    handed_at: UnixMillis | None
    confirmed_at: UnixMillis | None
    evidence: str
    withdrawn_at: UnixMillis | None

    @property
    def is_expected(self) -> bool:
        """Whether the host has it and its next event shows that it was read."""
        return self.handed_at is not None and self.confirmed_at is None and self.evidence != IN_DOUBT


def note_session(
    connection: sqlite3.Connection, mesh: MeshId, session: SessionId, agent: str, told: Told, now: UnixMillis
) -> None:
    """Remember under which key an agent's session speaks, and what was told of it."""
    connection.execute(
        "INSERT INTO agent_sessions (mesh, session, agent, opened_at, label, reach, about, tags)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (mesh, session) DO UPDATE SET agent = excluded.agent,"
        " label = excluded.label, reach = excluded.reach, about = excluded.about, tags = excluded.tags",
        (mesh, session, agent, now, told.label, told.reach, told.about, ",".join(told.tags)),
    )


def load_told(connection: sqlite3.Connection, agent: str) -> Told | None:
    """What was told of an agent's session when it spoke last, in whichever mesh; None when it never did."""
    row = connection.execute(
        "SELECT label, reach, about, tags FROM agent_sessions WHERE agent = ? ORDER BY opened_at DESC LIMIT 1", (agent,)
    ).fetchone()
    return Told(row[0], row[1], row[2], tuple(filter(None, row[3].split(",")))) if row is not None else None


def move_agent(connection: sqlite3.Connection, mesh: MeshId, before: str, after: str) -> None:
    """An agent's session turned out to be another one: what it was shown counts for that one."""
    connection.execute("UPDATE agent_sessions SET agent = ? WHERE mesh = ? AND agent = ?", (after, mesh, before))
    connection.execute("UPDATE OR IGNORE offers SET agent = ? WHERE mesh = ? AND agent = ?", (after, mesh, before))


def drop_old(connection: sqlite3.Connection, mesh: MeshId, before: UnixMillis) -> None:
    """Forget sessions that opened long ago, and offers of messages that are not kept any more."""
    connection.execute("DELETE FROM agent_sessions WHERE mesh = ? AND opened_at < ?", (mesh, before))
    connection.execute(
        "DELETE FROM offers WHERE mesh = ? AND offered_at < ? AND message NOT IN (SELECT id FROM inbox WHERE mesh = ?)",
        (mesh, before, mesh),
    )


def find_waiting(connection: sqlite3.Connection, mesh: MeshId, wanted: Wanted, limit: int) -> list[WaitingRow]:
    """Messages that may be put before an agent's session, the most urgent and oldest first.

    One to a session of ours is for whoever goes by its key or its label; any other one is for whoever takes it first,
    unless that session ended and left no sign that it was read.
    """
    rows = connection.execute(
        "SELECT i.id, i.rank, i.is_ack, i.session IS NOT NULL FROM inbox i"
        " WHERE i.mesh = :mesh AND i.seen_at IS NULL AND i.rank <= :rank AND i.is_ack <= :acks"
        " AND (i.session IS NULL OR i.session IN"
        " (SELECT session FROM agent_sessions WHERE mesh = :mesh AND (agent = :agent OR label = :label)))"
        " AND NOT EXISTS (SELECT 1 FROM offers o WHERE o.message = i.id AND o.withdrawn_at IS NULL AND ("
        "o.agent = :agent OR o.confirmed_at IS NOT NULL OR o.agent IN (SELECT value FROM json_each(:others))))"
        " ORDER BY i.rank, i.id LIMIT :limit",
        {
            "mesh": mesh,
            "rank": wanted.rank,
            "acks": int(wanted.acks),
            "agent": wanted.agent,
            "label": wanted.label,
            "others": json.dumps(list(wanted.others)),
            "limit": limit,
        },
    )
    return [WaitingRow(row[0], row[1], bool(row[2]), bool(row[3])) for row in rows]


def add(
    connection: sqlite3.Connection, mesh: MeshId, offerer: Offerer, drafts: Sequence[OfferDraft], now: UnixMillis
) -> list[int]:
    """Record offers; the number of each, or 0 for a part that this agent's session was given before."""
    numbers = []
    for draft in drafts:
        cursor = connection.execute(
            "INSERT OR IGNORE INTO offers (mesh, agent, session, label, adapter, message, begins, ends, length,"
            " offered_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (mesh, *offerer, *draft, now),
        )
        numbers.append(int(cursor.lastrowid or 0) if cursor.rowcount else 0)
    return numbers


def load_open(connection: sqlite3.Connection, mesh: MeshId, agent: str) -> list[OfferRow]:
    """Offers of an agent's session of which nobody knows yet whether they were shown, the oldest first."""
    rows = connection.execute(
        "SELECT * FROM offer_rows"
        " WHERE mesh = ? AND agent = ? AND confirmed_at IS NULL AND withdrawn_at IS NULL ORDER BY id",
        (mesh, agent),
    )
    return [OfferRow._make(row[1:]) for row in rows]


def find_unfinished(connection: sqlite3.Connection, mesh: MeshId, agent: str) -> list[int]:
    """Unread messages of which an agent's session was given a part, and not the end."""
    rows = connection.execute(
        "SELECT o.message FROM offers o JOIN inbox i ON i.id = o.message"
        " WHERE o.mesh = ? AND o.agent = ? AND o.withdrawn_at IS NULL AND i.seen_at IS NULL"
        " GROUP BY o.message HAVING max(o.ends) < max(o.length)",
        (mesh, agent),
    )
    return [row[0] for row in rows]


def is_former(connection: sqlite3.Connection, mesh: MeshId, session: SessionId, agent: str, label: str) -> bool:
    """Whether an agent, or one that went by its label, once spoke under this key."""
    found = connection.execute(
        "SELECT 1 FROM agent_sessions WHERE mesh = ? AND session = ? AND (agent = ? OR label = ?)",
        (mesh, session, agent, label),
    )
    return found.fetchone() is not None


def load_of_message(connection: sqlite3.Connection, message: int, agent: str = "") -> list[OfferRow]:
    """Offers of a message that were not withdrawn, of one agent's session or of all, the oldest first."""
    rows = connection.execute(
        "SELECT * FROM offer_rows WHERE message = ? AND withdrawn_at IS NULL AND (? = '' OR agent = ?) ORDER BY id",
        (message, agent, agent),
    )
    return [OfferRow._make(row[1:]) for row in rows]


def mark_handed(
    connection: sqlite3.Connection, mesh: MeshId, agent: str, offers: Iterable[int], now: UnixMillis
) -> list[tuple[int, str]]:
    """The host has them; row and adapter of each message whose beginning it was given just now."""
    begun = []
    for offer in offers:
        found = connection.execute(
            "UPDATE offers SET handed_at = ? WHERE id = ? AND mesh = ? AND agent = ? AND handed_at IS NULL"
            " AND withdrawn_at IS NULL RETURNING message, adapter, begins",
            (now, offer, mesh, agent),
        ).fetchone()
        if found is not None and found[2] == 0:
            begun.append((found[0], found[1]))
    return begun


def confirm(
    connection: sqlite3.Connection,
    mesh: MeshId,
    agent: str,
    session: SessionId,
    offers: Iterable[int],
    evidence: str,
    now: UnixMillis,
) -> list[tuple[int, str]]:
    """There is evidence that these are in the model's context.

    Returns:
        Row and adapter of each message that is now known to have been shown from beginning to end.
    """
    touched: dict[int, str] = {}
    for offer in offers:
        found = connection.execute(
            "UPDATE offers SET confirmed_at = ?, evidence = ?, session = ? WHERE id = ? AND mesh = ? AND agent = ?"
            " AND confirmed_at IS NULL AND withdrawn_at IS NULL"
            " RETURNING message, adapter",
            (now, evidence, session, offer, mesh, agent),
        ).fetchone()
        if found is not None:
            touched[found[0]] = found[1]
    return [(message, adapter) for message, adapter in touched.items() if is_whole(connection, message, agent)]


def is_whole(connection: sqlite3.Connection, message: int, agent: str) -> bool:
    """Whether the confirmed parts of a message reach from its beginning to its end."""
    reached = 0
    for row in sorted(load_of_message(connection, message, agent), key=lambda one: one.begins):
        if row.confirmed_at is None or row.begins > reached:
            return False
        reached = max(reached, row.ends)
        if reached >= row.length:
            return True
    return False


def doubt(connection: sqlite3.Connection, mesh: MeshId, agent: str) -> None:
    """The host began anew: whether what it was given before is in its model's context, nobody knows any more."""
    connection.execute(
        "UPDATE offers SET evidence = ? WHERE mesh = ? AND agent = ? AND handed_at IS NOT NULL"
        " AND confirmed_at IS NULL AND withdrawn_at IS NULL",
        (IN_DOUBT, mesh, agent),
    )


def withdraw(connection: sqlite3.Connection, agent: str, offers: Iterable[int], now: UnixMillis) -> None:
    """These were not shown, or the agent asks for them anew: another way may offer them."""
    connection.executemany(
        "UPDATE offers SET withdrawn_at = ? WHERE id = ? AND agent = ? AND confirmed_at IS NULL",
        [(now, offer, agent) for offer in offers],
    )
