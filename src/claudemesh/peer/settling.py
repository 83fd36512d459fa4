"""What the end of a submission leaves in the journal: the outcome, the stage, and the broker's words as evidence."""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from claudemesh.crypto import statements
from claudemesh.crypto.statements import Body, Statement
from claudemesh.errors import Malformed
from claudemesh.peer.journal import membership, outbox, posts, timeline
from claudemesh.peer.journal.outbox import OutboxRow
from claudemesh.peer.journal.posts import PostRow
from claudemesh.peer.journal.timeline import Evidence, Recorded
from claudemesh.protocol.delivery import Claim, Outcome, Stage, Witness
from claudemesh.protocol.messages import ACCEPT_FIELDS, ACCEPT_POST_ROW_FIELDS, ACCEPT_ROW_FIELDS
from claudemesh.types import BrokerId, MeshId, UnixMillis


class Acceptance(NamedTuple):
    """A broker's verified statement that it stored envelopes."""

    statement: Statement
    body: Body


class Settled(NamedTuple):
    """A row that `answers[answer]` settles."""

    answer: int
    row: OutboxRow | PostRow


def open_acceptance(statement: Statement, mesh: MeshId, broker: BrokerId) -> Acceptance:
    """Verify an `accepted`: without the broker's signature nothing was accepted.

    Raises:
        Malformed, BadSignature: It is not this broker's word about this mesh.
    """
    body = statements.open_statement(statement, "accept", broker)
    statements.check_fields(body, ACCEPT_FIELDS)
    if body["mesh"] != mesh:
        raise Malformed("stmt", "another mesh")
    for row in body["r"]:
        if not isinstance(row, dict):
            raise Malformed("field_type", "r")
        statements.check_fields(row, ACCEPT_POST_ROW_FIELDS if "chan" in row else ACCEPT_ROW_FIELDS)
    return Acceptance(statement, body)


def is_about_posts(answer: Acceptance) -> bool:
    """Whether any of the envelopes is a post."""
    return any("chan" in row for row in answer.body["r"])


def is_about_sends(answer: Acceptance) -> bool:
    """Whether any of the envelopes is a direct message."""
    return any("to" in row for row in answer.body["r"])


def write_accepted(
    connection: sqlite3.Connection,
    mesh: MeshId,
    answers: Sequence[Acceptance],
    settled: Sequence[Settled],
    now: UnixMillis,
) -> list[Recorded | None]:
    """Settle rows as accepted, each statement stored once as the evidence of all its rows."""
    receipts = [(row["n"], row["h"]) for answer in answers for row in answer.body["r"]]
    membership.add_audit_receipts(connection, mesh, receipts)
    outbox.settle(connection, [row.id for _, row in settled if isinstance(row, OutboxRow)], Outcome.ACCEPTED)
    evidence: dict[int, int] = {}
    recorded = []
    for index, row in settled:
        statement, body = answers[index]
        if isinstance(row, PostRow):
            posts.settle(connection, [row.id], Outcome.ACCEPTED, body["at"])
        if row.internal:
            continue
        if index not in evidence:
            content = Evidence("statement", statement.b.encode(), bytes.fromhex(statement.s))
            evidence[index] = timeline.add_evidence(connection, content)
        recorded.append(
            timeline.record(
                connection,
                mesh,
                row.message_id,
                row.to,
                Claim(Stage.ACCEPTED, Witness.BROKER),
                at=body["at"],
                recorded_at=now,
                signer=statement.k,
                evidence=evidence[index],
                outbox_row=row.id if isinstance(row, OutboxRow) else None,
            )
        )
    return recorded


def write_end(
    connection: sqlite3.Connection,
    mesh: MeshId,
    row: OutboxRow | PostRow,
    outcome: Outcome,
    claim: Claim,
    detail: str,
    signer: str,
    now: UnixMillis,
) -> Recorded | None:
    """Settle a row as refused or expired."""
    if isinstance(row, PostRow):
        posts.settle(connection, [row.id], outcome, None)
    else:
        outbox.settle(connection, [row.id], outcome)
    return timeline.record(
        connection, mesh, row.message_id, row.to, claim, at=now, recorded_at=now, signer=signer, detail=detail
    )
