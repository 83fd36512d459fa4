"""Rows of epochs: held ones, wanted ones, secrets handed on, and posts that wait for an epoch."""

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec

from claudemesh.crypto import statements
from claudemesh.crypto.epoch_record import EpochRecord, open_record, read_record
from claudemesh.crypto.statements import Statement
from claudemesh.protocol.epochs import HeldEpoch
from claudemesh.types import Digest, MeshId, PeerId, UnixMillis

_statement_decoder = msgspec.json.Decoder(Statement)


class Publication(NamedTuple):
    """An epoch of our own that the broker has not answered for: it is published again as it was."""

    epoch: HeldEpoch
    statement: Statement
    attestation: Digest
    slots: tuple[str, ...]


class ParkedPost(NamedTuple):
    """A post that waits for its epoch, with the attestation that it names."""

    id: int
    epoch: Digest
    sender: PeerId
    message_id: str
    attestation: Statement
    frame: bytes
    accepted_at: UnixMillis


class ParkedDraft(NamedTuple):
    """A post before it is parked."""

    epoch: str
    sender: PeerId
    message_id: str
    attestation: Statement
    frame: bytes
    accepted_at: UnixMillis


def load_held(connection: sqlite3.Connection, mesh: MeshId) -> list[HeldEpoch]:
    """Every epoch that may be read with; unpublished ones of our own are not among them."""
    rows = connection.execute(
        "SELECT body, statement, secret, received_at FROM epochs WHERE mesh = ? AND publication IS NULL", (mesh,)
    )
    return [_held(row) for row in rows]


def save(
    connection: sqlite3.Connection,
    mesh: MeshId,
    held: HeldEpoch,
    statement: Statement | None,
    publication: bytes | None,
) -> None:
    """Store an epoch. One that is known without a signature gains it; a published one stays published."""
    record = held.record
    connection.execute(
        "INSERT INTO epochs (mesh, epoch, scope, body, statement, secret, received_at, publication)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (mesh, epoch) DO UPDATE SET"
        " statement = coalesce(statement, excluded.statement), publication = NULL",
        (
            mesh,
            record.id,
            record.scope,
            statements.encode(record.body),
            None if statement is None else msgspec.json.encode(statement),
            held.secret,
            held.received_at,
            publication,
        ),
    )
    if statement is not None or publication is not None:
        connection.execute("DELETE FROM epochs_wanted WHERE mesh = ? AND epoch = ?", (mesh, record.id))


def write_publication(attestation: Digest, slots: Sequence[str]) -> bytes:
    """What publishing an epoch needs beyond its record."""
    return msgspec.json.encode((attestation, slots))


def mark_published(connection: sqlite3.Connection, mesh: MeshId, epoch: Digest) -> None:
    """The broker stored an epoch of our own."""
    connection.execute("UPDATE epochs SET publication = NULL WHERE mesh = ? AND epoch = ?", (mesh, epoch))


def load_unpublished(connection: sqlite3.Connection, mesh: MeshId) -> list[Publication]:
    """Epochs of our own that the broker has not answered for."""
    rows = connection.execute(
        "SELECT body, statement, secret, received_at, publication FROM epochs"
        " WHERE mesh = ? AND publication IS NOT NULL",
        (mesh,),
    )
    found = []
    for row in rows:
        attestation, slots = msgspec.json.decode(row[4], type=tuple[str, tuple[str, ...]])
        found.append(Publication(_held(row[:4]), _statement_decoder.decode(row[1]), Digest(attestation), slots))
    return found


def drop_unpublished(connection: sqlite3.Connection, mesh: MeshId, epoch: Digest) -> None:
    """An epoch of our own was refused: nobody has it."""
    connection.execute("DELETE FROM epochs WHERE mesh = ? AND epoch = ? AND publication IS NOT NULL", (mesh, epoch))


def drop(connection: sqlite3.Connection, mesh: MeshId, epochs: Collection[Digest]) -> None:
    """Forget epochs: what was sent under them is not opened again."""
    connection.executemany("DELETE FROM epochs WHERE mesh = ? AND epoch = ?", [(mesh, epoch) for epoch in epochs])


def want(connection: sqlite3.Connection, mesh: MeshId, epoch: Digest, statement: Statement, now: UnixMillis) -> None:
    """Keep a signed record whose slot did not open."""
    connection.execute(
        "INSERT OR IGNORE INTO epochs_wanted (mesh, epoch, statement, received_at) VALUES (?, ?, ?, ?)",
        (mesh, epoch, msgspec.json.encode(statement), now),
    )


def load_wanted(connection: sqlite3.Connection, mesh: MeshId) -> list[Statement]:
    """The signed records whose secrets are missing."""
    rows = connection.execute("SELECT statement FROM epochs_wanted WHERE mesh = ?", (mesh,))
    return [_statement_decoder.decode(row[0]) for row in rows]


def drop_old(connection: sqlite3.Connection, mesh: MeshId, before: UnixMillis) -> None:
    """Forget what can arrive no more: wanted records, answers given, parked posts."""
    connection.execute("DELETE FROM epochs_wanted WHERE mesh = ? AND received_at < ?", (mesh, before))
    connection.execute("DELETE FROM slots_given WHERE mesh = ? AND at < ?", (mesh, before))
    connection.execute("DELETE FROM parked_posts WHERE mesh = ? AND parked_at < ?", (mesh, before))


def note_given(connection: sqlite3.Connection, mesh: MeshId, peer: PeerId, epoch: str, now: UnixMillis) -> bool:
    """Remember that a peer is handed a secret; False when it was before."""
    cursor = connection.execute(
        "INSERT OR IGNORE INTO slots_given (mesh, peer, epoch, at) VALUES (?, ?, ?, ?)", (mesh, peer, epoch, now)
    )
    return cursor.rowcount > 0


def load_asked(connection: sqlite3.Connection, mesh: MeshId) -> set[tuple[PeerId, str]]:
    """Whom a nack was sent to, and about what."""
    rows = connection.execute("SELECT sender, message_id FROM nacks_sent WHERE mesh = ?", (mesh,))
    return {(PeerId(row[0]), row[1]) for row in rows}


def park(connection: sqlite3.Connection, mesh: MeshId, draft: ParkedDraft, now: UnixMillis) -> None:
    """Keep a post until its epoch comes."""
    connection.execute(
        "INSERT OR IGNORE INTO parked_posts"
        " (mesh, epoch, sender, message_id, attestation, frame, accepted_at, parked_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            mesh,
            draft.epoch,
            draft.sender,
            draft.message_id,
            msgspec.json.encode(draft.attestation),
            draft.frame,
            draft.accepted_at,
            now,
        ),
    )


def load_parked(connection: sqlite3.Connection, mesh: MeshId, epochs: Collection[Digest]) -> list[ParkedPost]:
    """The posts that wait for any of these epochs, in the order of their arrival."""
    found = []
    for epoch in epochs:
        rows = connection.execute(
            "SELECT id, epoch, sender, message_id, attestation, frame, accepted_at FROM parked_posts"
            " WHERE mesh = ? AND epoch = ?",
            (mesh, epoch),
        )
        found += [
            ParkedPost(row[0], row[1], row[2], row[3], _statement_decoder.decode(row[4]), row[5], row[6])
            for row in rows
        ]
    return sorted(found, key=lambda post: post.id)


def parked_epochs(connection: sqlite3.Connection, mesh: MeshId) -> set[Digest]:
    """The epochs that posts wait for."""
    return {row[0] for row in connection.execute("SELECT DISTINCT epoch FROM parked_posts WHERE mesh = ?", (mesh,))}


def count_parked(connection: sqlite3.Connection, mesh: MeshId) -> dict[PeerId, int]:
    """How many posts of each sender wait."""
    rows = connection.execute("SELECT sender, count(*) FROM parked_posts WHERE mesh = ? GROUP BY sender", (mesh,))
    return {row[0]: row[1] for row in rows}


def unpark(connection: sqlite3.Connection, row_ids: Sequence[int]) -> None:
    """Parked posts were judged."""
    connection.executemany("DELETE FROM parked_posts WHERE id = ?", [(row_id,) for row_id in row_ids])


def _held(row: tuple[Any, ...]) -> HeldEpoch:
    body, statement, secret, received_at = row
    return HeldEpoch(_record(body, statement), bytes(secret), UnixMillis(received_at))


def _record(body: bytes, statement: bytes | None) -> EpochRecord:
    if statement is None:
        return read_record(statements.decode(body))
    return open_record(_statement_decoder.decode(statement))
