"""Rows of posts that this peer writes: one per message, whatever the size of the channel."""

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from claudemesh.peer.journal.open_rows import OpenRows
from claudemesh.peer.journal.outbox import PRIORITIES, RANKS
from claudemesh.protocol.chains import Chain
from claudemesh.protocol.delivery import Claim, Outcome, Stage, Witness
from claudemesh.types import ChannelId, Digest, Intent, MeshId, MessageId, PeerId, Priority, SessionId, UnixMillis

_OPEN: Final = OpenRows("posts", "post_rows", "channel")


class PostDraft(NamedTuple):
    """One message for one channel, before it is sealed."""

    message_id: MessageId
    channel: ChannelId
    content_type: str
    body: bytes
    created_at: UnixMillis
    priority: Priority = "next"
    intent: Intent | None = None
    reply_to: MessageId | None = None
    session: SessionId | None = None
    not_before: UnixMillis | None = None
    expires_at: UnixMillis | None = None
    chain: Chain | None = None
    """Where it stands in a conversation; None where a person begins one."""


class PostRow(NamedTuple):
    """A row as stored."""

    id: int
    message_id: MessageId
    channel: ChannelId
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
    attestation: str | None
    counter: int | None
    epoch: Digest | None
    envelope: bytes | None
    accepted_at: UnixMillis | None
    root: MessageId | None
    hop: int | None
    stage: Stage
    witness: Witness

    @property
    def to(self) -> ChannelId:
        """The channel that it is sent to; of a direct message, the peer."""
        return self.channel

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


class SealedPost(NamedTuple):
    """What sealing adds to a row."""

    id: int
    attestation: str
    counter: int
    epoch: Digest
    envelope: bytes


def enqueue(connection: sqlite3.Connection, mesh: MeshId, draft: PostDraft) -> None:
    """Commit a post as `queued`; an id that is there already stays as it is."""
    connection.execute(
        "INSERT OR IGNORE INTO posts (mesh, message_id, channel, content_type, body, created_at, rank, intent,"
        " reply_to, session, not_before, expires_at, root, hop) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (mesh, *draft[:5], RANKS[draft.priority], *draft[6:11], *(draft.chain or (None, None))),
    )


def load_open(
    connection: sqlite3.Connection,
    mesh: MeshId,
    skip: Collection[int],
    limit: int,
    *,
    agents: bool = True,
    full: Sequence[str] = (),
) -> list[PostRow]:
    """The next posts that are not settled, the most urgent and oldest first; see `OpenRows.load`."""
    return [_row(row) for row in _OPEN.load(connection, mesh, skip, limit, agents=agents, full=full)]


def find(connection: sqlite3.Connection, mesh: MeshId, message_id: str) -> PostRow | None:
    """The post with this id."""
    row = connection.execute("SELECT * FROM post_rows WHERE mesh = ? AND message_id = ?", (mesh, message_id)).fetchone()
    return None if row is None else _row(row)


def find_ids(connection: sqlite3.Connection, mesh: MeshId, prefix: str, limit: int) -> list[MessageId]:
    """Ids of posts that begin with `prefix` (hex digits)."""
    rows = connection.execute(
        "SELECT message_id FROM posts WHERE mesh = ? AND message_id >= ? AND message_id < ?"
        " AND content_type NOT LIKE 'cm/%' LIMIT ?",
        (mesh, prefix, prefix + "g", limit),
    )
    return [row[0] for row in rows]


def load_recipients(connection: sqlite3.Connection, mesh: MeshId, message_id: str) -> dict[PeerId, Claim]:
    """Who may confirm a post, and what is shown of each."""
    rows = connection.execute(
        "SELECT peer, stage, witness FROM post_recipients WHERE mesh = ? AND message_id = ?", (mesh, message_id)
    )
    return {row[0]: Claim(Stage(row[1]), Witness(row[2])) for row in rows}


def mark_sealed(
    connection: sqlite3.Connection, mesh: MeshId, posts: Sequence[tuple[MessageId, SealedPost, Sequence[PeerId]]]
) -> None:
    """Store sealed posts with those who may confirm them, before any of them is transmitted."""
    for message_id, post, recipients in posts:
        connection.execute(
            "UPDATE posts SET state = 'sealed', attestation = ?, counter = ?, epoch = ?, envelope = ? WHERE id = ?",
            (*post[1:], post.id),
        )
        connection.executemany(
            "INSERT OR IGNORE INTO post_recipients (mesh, message_id, peer) VALUES (?, ?, ?)",
            [(mesh, message_id, peer) for peer in recipients],
        )


def settle(
    connection: sqlite3.Connection, row_ids: Sequence[int], outcome: Outcome, accepted_at: UnixMillis | None
) -> None:
    """Close posts: they are not submitted again. What was accepted stays as local history, as it was sealed."""
    connection.executemany(
        "UPDATE posts SET state = ?, accepted_at = coalesce(accepted_at, ?) WHERE id = ?",
        [(outcome.value, accepted_at, row_id) for row_id in row_ids],
    )


def requeue_undelivered(connection: sqlite3.Connection, mesh: MeshId, epochs: Collection[Digest]) -> None:
    """Submit again what a broker accepted and lost with its store, where the membership is still the same.

    Args:
        epochs: Those that are usable now: nobody who joined since gets to read what was sent before.
    """
    connection.executemany(
        "UPDATE posts SET state = 'queued', envelope = NULL"
        " WHERE mesh = ? AND state = 'accepted' AND epoch = ? AND NOT EXISTS (SELECT 1 FROM post_recipients AS r"
        " WHERE r.mesh = posts.mesh AND r.message_id = posts.message_id AND r.witness = 'peer')",
        [(mesh, epoch) for epoch in epochs],
    )


def purge_internal(connection: sqlite3.Connection, mesh: MeshId, before: UnixMillis) -> None:
    """Drop the protocol's own settled posts."""
    connection.execute(
        "DELETE FROM posts WHERE mesh = ? AND content_type LIKE 'cm/%' AND created_at < ?"
        " AND state IN ('accepted', 'refused', 'expired')",
        (mesh, before),
    )


def count_open(connection: sqlite3.Connection, mesh: MeshId) -> int:
    """How many posts are not settled."""
    row = connection.execute(
        "SELECT count(*) FROM posts WHERE mesh = ? AND state IN ('queued', 'sealed')", (mesh,)
    ).fetchone()
    return int(row[0])


def next_expiry(connection: sqlite3.Connection, mesh: MeshId) -> UnixMillis | None:
    """When the next post expires that was never sealed."""
    row = connection.execute(
        "SELECT min(expires_at) FROM posts WHERE mesh = ? AND state = 'queued'", (mesh,)
    ).fetchone()
    return None if row[0] is None else UnixMillis(row[0])


def load_expired(connection: sqlite3.Connection, mesh: MeshId, now: UnixMillis) -> list[PostRow]:
    """Posts that were never sealed and whose time is over."""
    rows = connection.execute(
        "SELECT * FROM post_rows WHERE mesh = ? AND state = 'queued' AND expires_at < ?", (mesh, now)
    )
    return [_row(row) for row in rows]


def load_of_channel(connection: sqlite3.Connection, mesh: MeshId, channel: ChannelId, limit: int) -> list[PostRow]:
    """The last posts to a channel that the broker accepted, oldest first."""
    rows = connection.execute(
        "SELECT * FROM post_rows WHERE mesh = ? AND channel = ? AND accepted_at IS NOT NULL ORDER BY id DESC LIMIT ?",
        (mesh, channel, limit),
    )
    return [_row(row) for row in rows][::-1]


def _row(row: tuple[Any, ...]) -> PostRow:
    return PostRow._make((*row[1:-2], Stage(row[-2]), Witness(row[-1])))
