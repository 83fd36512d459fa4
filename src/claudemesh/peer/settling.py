"""What the end of a submission leaves in the journal: the outcome, the stage, and the broker's words as evidence."""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from claudemesh.crypto import statements
from claudemesh.crypto.statements import Body, Statement
from claudemesh.errors import Malformed
from claudemesh.peer.journal import membership, outbox, timeline
from claudemesh.peer.journal.outbox import OutboxRow
from claudemesh.peer.journal.timeline import Evidence, Recorded
from claudemesh.protocol.delivery import Claim, Outcome, Stage, Witness
from claudemesh.protocol.messages import ACCEPT_FIELDS, ACCEPT_ROW_FIELDS
from claudemesh.types import BrokerId, MeshId, UnixMillis


class Acceptance(NamedTuple):
    """A broker's verified statement that it stored envelopes."""

    statement: Statement
    body: Body


class SettledRow(NamedTuple):
    """An outbox row that `answers[answer]` settles."""

    answer: int
    row: OutboxRow


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
        statements.check_fields(row, ACCEPT_ROW_FIELDS)
    return Acceptance(statement, body)


def write_accepted(
    connection: sqlite3.Connection,
    mesh: MeshId,
    answers: Sequence[Acceptance],
    settled: Sequence[SettledRow],
    now: UnixMillis,
) -> list[Recorded | None]:
    """Settle rows as accepted, each statement stored once as the evidence of all its rows."""
    receipts = [(row["n"], row["h"]) for answer in answers for row in answer.body["r"]]
    membership.add_audit_receipts(connection, mesh, receipts)
    outbox.settle(connection, [one.row.id for one in settled], Outcome.ACCEPTED)
    evidence: dict[int, int] = {}
    recorded = []
    for index, row in settled:
        if row.internal:
            continue
        statement, body = answers[index]
        if index not in evidence:
            content = Evidence("statement", statement.b.encode(), bytes.fromhex(statement.s))
            evidence[index] = timeline.add_evidence(connection, content)
        recorded.append(
            timeline.record(
                connection,
                mesh,
                row.message_id,
                row.peer,
                Claim(Stage.ACCEPTED, Witness.BROKER),
                at=body["at"],
                recorded_at=now,
                signer=statement.k,
                evidence=evidence[index],
            )
        )
    return recorded


def write_end(
    connection: sqlite3.Connection,
    mesh: MeshId,
    row: OutboxRow,
    outcome: Outcome,
    claim: Claim,
    detail: str,
    signer: str,
    now: UnixMillis,
) -> Recorded | None:
    """Settle a row as refused or expired."""
    outbox.settle(connection, [row.id], outcome)
    return timeline.record(
        connection, mesh, row.message_id, row.peer, claim, at=now, recorded_at=now, signer=signer, detail=detail
    )
