"""Rows of the outbox: one per message and addressed peer, from `queued` to settled."""

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from claudemesh.peer.journal.open_rows import OpenRows
from claudemesh.protocol.chains import Chain
from claudemesh.protocol.delivery import Claim, Outcome, Stage, Witness
from claudemesh.types import Intent, MeshId, MessageId, PeerId, Priority, SessionId, UnixMillis

RANKS: Final[dict[Priority, int]] = {"now": 0, "next": 1, "low": 2}
PRIORITIES: Final[tuple[Priority, ...]] = ("now", "next", "low")
_OPEN: Final = OpenRows("outbox", "outbox_rows", "peer")


class Draft(NamedTuple):
    """One message for one peer, before it is sealed."""

    message_id: MessageId
    peer: PeerId
    content_type: str
    body: bytes
    created_at: UnixMillis
    priority: Priority = "next"
    intent: Intent | None = None
    reply_to: MessageId | None = None
    peer_session: SessionId | None = None
    session: SessionId | None = None
    not_before: UnixMillis | None = None
    expires_at: UnixMillis | None = None
    chain: Chain | None = None
    """Where it stands in a conversation; None where a person begins one."""


class OutboxRow(NamedTuple):
    """A row as stored."""

    id: int
    message_id: MessageId
    peer: PeerId
    peer_session: SessionId | None
    session: SessionId | None
    content_type: str
    body: bytes
    rank: int
    intent: Intent | None
    reply_to: MessageId | None
    not_before: UnixMillis | None
    expires_at: UnixMillis | None
    created_at: UnixMillis
    state: str
    resealed: bool
    attestation: str | None
    counter: int | None
    envelope: bytes | None
    root: MessageId | None
    hop: int | None
    stage: Stage
    witness: Witness

    @property
    def to(self) -> PeerId:
        """Whom it is sent to; of a post, the channel."""
        return self.peer

    @property
    def priority(self) -> Priority:
        return PRIORITIES[self.rank]

    @property
    def internal(self) -> bool:
        """Whether it is the protocol's own (`cm/…`): nobody asks for its timeline."""
        return self.content_type.startswith("cm/")

    @property
    def shown(self) -> Claim:
        return Claim(self.stage, self.witness)


class SealedRow(NamedTuple):
    """What sealing adds to a row."""

    id: int
    attestation: str
    counter: int
    envelope: bytes


def enqueue(connection: sqlite3.Connection, mesh: MeshId, drafts: Sequence[Draft]) -> None:
    """Commit drafts as `queued`; a message id that is queued for a peer already stays as it is."""
    connection.executemany(
        "INSERT OR IGNORE INTO outbox (mesh, message_id, peer, peer_session, session, content_type, body, rank, intent,"
        " reply_to, not_before, expires_at, created_at, root, hop)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                mesh,
                draft.message_id,
                draft.peer,
                draft.peer_session,
                draft.session,
                draft.content_type,
                draft.body,
                RANKS[draft.priority],
                draft.intent,
                draft.reply_to,
                draft.not_before,
                draft.expires_at,
                draft.created_at,
                *(draft.chain or (None, None)),
            )
            for draft in drafts
        ],
    )


def load_open(
    connection: sqlite3.Connection,
    mesh: MeshId,
    skip: Collection[int],
    limit: int,
    *,
    agents: bool = True,
    full: Sequence[str] = (),
) -> list[OutboxRow]:
    """The next rows that are not settled, the most urgent and oldest first; see `OpenRows.load`."""
    return [_row(row) for row in _OPEN.load(connection, mesh, skip, limit, agents=agents, full=full)]


def find(connection: sqlite3.Connection, mesh: MeshId, message_id: str) -> list[OutboxRow]:
    """Every row of a message, one per addressed peer."""
    rows = connection.execute(
        "SELECT * FROM outbox_rows WHERE mesh = ? AND message_id = ? ORDER BY id",
        (mesh, message_id),
    )
    return [_row(row) for row in rows]


def find_ids(connection: sqlite3.Connection, mesh: MeshId, prefix: str, limit: int) -> list[MessageId]:
    """Ids of sent messages that begin with `prefix` (hex digits)."""
    rows = connection.execute(
        "SELECT DISTINCT message_id FROM outbox WHERE mesh = ? AND message_id >= ? AND message_id < ?"
        " AND content_type NOT LIKE 'cm/%' LIMIT ?",
        (mesh, prefix, prefix + "g", limit),
    )
    return [row[0] for row in rows]


def mark_sealed(connection: sqlite3.Connection, rows: Sequence[SealedRow]) -> None:
    """Store sealed envelopes, before any of them is transmitted."""
    connection.executemany(
        "UPDATE outbox SET state = 'sealed', attestation = ?, counter = ?, envelope = ?"
        " WHERE id = ? AND state IN ('queued', 'sealed')",
        [(row.attestation, row.counter, row.envelope, row.id) for row in rows],
    )


def mark_queued(connection: sqlite3.Connection, row_id: int, *, resealed: bool) -> None:
    """Have a row sealed again; `resealed` remembers that a recipient asked for it."""
    connection.execute(
        "UPDATE outbox SET state = 'queued', envelope = NULL, resealed = max(resealed, ?) WHERE id = ?",
        (int(resealed), row_id),
    )


def settle(connection: sqlite3.Connection, row_ids: Sequence[int], outcome: Outcome) -> None:
    """Close rows: they are not submitted again. The sealed copy goes, the text stays as local history."""
    connection.executemany(
        "UPDATE outbox SET state = ?, envelope = NULL WHERE id = ?", [(outcome.value, row_id) for row_id in row_ids]
    )


def requeue_undelivered(connection: sqlite3.Connection, mesh: MeshId, now: UnixMillis, since: UnixMillis) -> int:
    """Submit again what a broker accepted and nobody is known to have: it lost its store, or the mesh moved.

    The ids stay, so a recipient that has a message already drops the copy. Of the protocol's own messages, which
    nobody receipts, those made after `since` go again: receiving them twice changes nothing.
    """
    changed = connection.execute(
        "UPDATE outbox SET state = 'queued', envelope = NULL WHERE mesh = ? AND state = 'accepted'"
        " AND coalesce(expires_at, ?) >= ?"
        " AND (stage = 'accepted' OR (content_type LIKE 'cm/%' AND created_at > ?))",
        (mesh, now, now, since),
    )
    return changed.rowcount


def purge_internal(connection: sqlite3.Connection, mesh: MeshId, before: UnixMillis) -> None:
    """Drop the protocol's own settled messages that no nack can concern any more."""
    connection.execute(
        "DELETE FROM outbox WHERE mesh = ? AND content_type LIKE 'cm/%' AND created_at < ?"
        " AND state IN ('accepted', 'refused', 'expired')",
        (mesh, before),
    )


def purge_unsent(connection: sqlite3.Connection, mesh: MeshId, content_type: str, peer: PeerId) -> None:
    """Drop the protocol's own messages of one kind that wait unsealed: a newer one replaces them."""
    connection.execute(
        # The states twice: only by the words of its condition does SQLite find the index of open rows.
        "DELETE FROM outbox WHERE mesh = ? AND content_type = ? AND peer = ? AND state = 'queued'"
        " AND state IN ('queued', 'sealed')",
        (mesh, content_type, peer),
    )


def count_open(connection: sqlite3.Connection, mesh: MeshId) -> int:
    """How many rows are not settled."""
    row = connection.execute(
        "SELECT count(*) FROM outbox WHERE mesh = ? AND state IN ('queued', 'sealed')", (mesh,)
    ).fetchone()
    return int(row[0])


def next_expiry(connection: sqlite3.Connection, mesh: MeshId) -> UnixMillis | None:
    """When the next unsealed row expires."""
    row = connection.execute(
        "SELECT min(expires_at) FROM outbox WHERE mesh = ? AND state IN ('queued', 'sealed') AND state = 'queued'",
        (mesh,),
    ).fetchone()
    return None if row[0] is None else UnixMillis(row[0])


def load_expired(connection: sqlite3.Connection, mesh: MeshId, now: UnixMillis) -> list[OutboxRow]:
    """Rows that were never transmitted and whose time is over."""
    rows = connection.execute(
        "SELECT * FROM outbox_rows"
        " WHERE mesh = ? AND state IN ('queued', 'sealed') AND state = 'queued' AND expires_at < ?",
        (mesh, now),
    )
    return [_row(row) for row in rows]


def _row(row: tuple[Any, ...]) -> OutboxRow:
    return OutboxRow._make((*row[1:-2], Stage(row[-2]), Witness(row[-1])))
