"""What the processes left on disk, read and verified afterwards without them: journals, and the broker's database.

Every signature is checked from the stored bytes, so that no process is believed about itself.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from claudemesh.crypto import frames, identity, statements
from claudemesh.crypto.identity import Attestation
from claudemesh.crypto.statements import Statement
from claudemesh.protocol.audit_rows import row_hash
from claudemesh.protocol.roster import Entry, Roster
from claudemesh.types import ZERO_DIGEST, Digest, SessionId
from tests.postgres import PostgresServer

_AUDIT_COLUMNS = "id, mesh_id, event_type, actor_peer_id, target_peer_id, metadata, created_at, prev_hash, hash"
_AUDIT_NAMES = _AUDIT_COLUMNS.split(", ")
_FRAME_PREFIX_BYTES = 5


class Frame(NamedTuple):
    """A signed message as its recipient keeps it."""

    header: dict[str, Any]
    body: bytes


class Received(NamedTuple):
    """A row of an inbox, its signature verified."""

    message_id: str
    sender: str
    text: str
    received_at: int
    session: str
    counter: int
    reply_to: str


class Sent(NamedTuple):
    """A row of an outbox that holds a person's or an agent's text."""

    message_id: str
    to: str
    text: str
    state: str
    stage: str


class Step(NamedTuple):
    """A row of a timeline, its evidence verified."""

    message_id: str
    to: str
    stage: str
    witness: str
    at: int
    audit_row: tuple[int, str] | None
    """Number and hash of the row of the audit log that the broker signed for."""


class AuditLog(NamedTuple):
    """The broker's audit log of one mesh, its chain verified."""

    hashes: list[str]
    created_at: list[int]


class Journal:
    """One peer's state.db."""

    def __init__(self, path: Path, member: str) -> None:
        self.member = member
        self._path = path
        self.roster = self._read_roster()
        self._attestations = {
            digest: identity.open_attestation(msgspec.json.decode(raw, type=Statement))
            for digest, raw in self._rows("SELECT digest, statement FROM attestations")
        }

    def received(self) -> list[Received]:
        """The inbox; fails where a stored message does not prove who sent it to whom."""
        query = "SELECT message_id, sender, frame, signature, attestation, received_at, reply_to FROM inbox ORDER BY id"
        return [self._open_received(*row) for row in self._rows(query)]

    def sent(self) -> list[Sent]:
        """The outbox without the protocol's own messages."""
        query = "SELECT message_id, peer, body, state, stage FROM outbox WHERE content_type NOT LIKE 'cm/%' ORDER BY id"
        return [Sent(row[0], row[1], row[2].decode(), row[3], row[4]) for row in self._rows(query)]

    def open_rows(self) -> int:
        """How many rows of the outbox wait, the protocol's own included."""
        return self._count("SELECT count(*) FROM outbox WHERE state IN ('queued', 'sealed')")

    def steps(self) -> list[Step]:
        """Every timeline; fails where the evidence of a step does not prove it."""
        query = (
            "SELECT message_id, peer, stage, witness, at, signer, detail, kind, content, signature, attestation"
            " FROM timeline LEFT JOIN evidence ON evidence.id = timeline.evidence"
        )
        return [self._open_step(*row) for row in self._rows(query)]

    def complaints(self) -> list[Any]:
        """Freezes, and envelopes that were refused: with honest peers and an honest broker there are none."""
        frozen = self._rows("SELECT code, frozen_at FROM freezes")
        return [*frozen, *self._rows("SELECT code, sender, count FROM quarantine")]

    def _open_received(
        self, message_id: str, sender: str, frame: bytes, signature: bytes, digest: str, at: int, reply_to: str | None
    ) -> Received:
        attestation = self._attestations[digest]
        opened = open_frame(frame, signature, attestation)
        header = opened.header
        assert (attestation.member, header["from"], header["id"]) == (sender, sender, message_id)
        assert (header["to"], header.get("re")) == (self.member, reply_to)
        return Received(
            message_id, sender, opened.body.decode(), at, header["sess"], header["n"], str(header.get("re", ""))
        )

    def _open_step(
        self,
        message_id: str,
        peer: str,
        stage: str,
        witness: str,
        at: int,
        signer: str,
        detail: str,
        kind: str | None,
        content: bytes,
        signature: bytes,
        digest: str,
    ) -> Step:
        audit_row = None
        match kind, stage:
            case "statement", "accepted":
                audit_row = self._check_acceptance(message_id, peer, signer, content, signature)
            case "frame", "delivered" | "read":
                attestation = self._attestations[digest]
                opened = open_frame(content, signature, attestation)
                receipts = [(row["id"], row["st"]) for row in json.loads(opened.body)["r"]]
                assert (attestation.member, attestation.session) == (peer, signer)
                assert opened.header["to"] == self.member
                assert (message_id, stage) in receipts
            case None, "replied":
                assert self._count(
                    "SELECT count(*) FROM inbox WHERE message_id = ? AND sender = ? AND reply_to = ?",
                    (detail, peer, message_id),
                )
            case _:
                raise AssertionError(
                    f"{message_id}: {stage} by {witness} ({detail}) has no evidence that it could have"
                )
        return Step(message_id, peer, stage, witness, at, audit_row)

    def _check_acceptance(
        self, message_id: str, peer: str, signer: str, content: bytes, signature: bytes
    ) -> tuple[int, str]:
        assert signer == self.roster.broker
        statements.verify_bytes(signer, "accept", content, signature.hex())
        # A frame that came twice is answered twice, perhaps in one statement: by the same row.
        rows = [row for row in json.loads(content)["r"] if (row["id"], row["to"]) == (message_id, peer)]
        [row] = {(row["n"], row["h"]) for row in rows}
        return row

    def _read_roster(self) -> Roster:
        return replay_roster(raw for (raw,) in self._rows("SELECT entry FROM roster_entries ORDER BY seq"))

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with open_read_only(self._path) as connection:
            return connection.execute(query, values).fetchall()

    def _count(self, query: str, values: tuple[Any, ...] = ()) -> int:
        return int(self._rows(query, values)[0][0])


def open_frame(frame: bytes, signature: bytes, attestation: Attestation) -> Frame:
    """Verify a stored message against the session that signed it, and read it."""
    frames.verify("dm", frame, signature, SessionId(attestation.session))
    header_end = _FRAME_PREFIX_BYTES + int.from_bytes(frame[1:_FRAME_PREFIX_BYTES], "big")
    header = statements.decode(frame[_FRAME_PREFIX_BYTES:header_end])
    assert header["sess"] == attestation.session
    return Frame(header, frame[header_end + 4 :])


def broker_roster(database: Path) -> Roster:
    """The log as the broker stores it, every signature checked."""
    with open_read_only(database) as connection:
        rows = connection.execute("SELECT entry FROM roster_entries ORDER BY seq").fetchall()
    return replay_roster(raw for (raw,) in rows)


def broker_audit(database: Path) -> AuditLog:
    """The audit log of the broker's only mesh; fails where its chain is broken."""
    with open_read_only(database) as connection:
        rows = connection.execute(f"SELECT {_AUDIT_COLUMNS} FROM audit_log ORDER BY id").fetchall()  # noqa: S608
    return replay_audit(dict(zip(_AUDIT_NAMES, row, strict=True)) | {"metadata": json.loads(row[5])} for row in rows)


def cluster_roster(server: PostgresServer, database: str) -> Roster:
    """The same from PostgreSQL."""
    rows = server.sql("SELECT encode(entry, 'hex') FROM roster_entries ORDER BY seq", database).splitlines()
    return replay_roster(bytes.fromhex(row) for row in rows)


def cluster_audit(server: PostgresServer, database: str) -> AuditLog:
    """The same from PostgreSQL."""
    rows = server.sql("SELECT row_to_json(audit_log) FROM audit_log ORDER BY id", database).splitlines()
    return replay_audit(map(json.loads, rows))


def replay_audit(rows: Iterable[dict[str, Any]]) -> AuditLog:
    """Follow a chain from its first row."""
    log, previous = AuditLog([], []), ZERO_DIGEST
    for number, row in enumerate(rows):
        stored_hash = row.pop("hash")
        assert (row["id"], row["prev_hash"]) == (number, previous)
        previous = Digest(row_hash(statements.encode(row)))
        assert stored_hash == previous
        log.hashes.append(previous)
        log.created_at.append(row["created_at"])
    return log


def replay_roster(raw_entries: Iterator[bytes]) -> Roster:
    """A roster from its stored entries, every signature checked."""
    roster = Roster()
    for raw in raw_entries:
        roster.apply(msgspec.json.decode(raw, type=Entry))
    return roster


@contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that changes nothing."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        yield connection
    finally:
        connection.close()
