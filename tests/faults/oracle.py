"""Judges a life under faults, from what everybody saw and what every database holds: lost, double, false."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

from claudemesh.protocol.roster import Roster
from tests.faults.journals import AuditLog, Journal, Received, Sent, Step
from tests.faults.seen import Letter, Report, Seen
from tests.faults.victims import DaemonVictim

_DELIVERED_STAGES: Final = {"delivered", "offered", "read", "replied"}


class Clock(Protocol):
    """What is known of a machine's clock."""

    def true_times(self, shown_ms: int) -> list[int]:
        """When it may have shown this, earliest first; none when it never did."""
        ...


class Evidence(NamedTuple):
    """What is judged besides what was seen: the daemons' journals, and the broker's own tables."""

    daemons: dict[str, DaemonVictim]
    members: dict[str, str]
    """Peer keys by user."""
    roster: Roster
    audit: AuditLog
    clock_error_ms: int = 0
    """By which the broker's clock may be ahead: a cluster has the clock of its database, as far as a node knows it."""
    clocks: Mapping[str, Clock] = {}
    """By user, of machines whose clock was not always right."""


def check(
    evidence: Evidence, seen: Seen, inboxes: dict[str, list[dict[str, Any]]]
) -> tuple[list[str], list[str], list[str]]:
    """What was lost, what came twice, what was claimed and did not happen."""
    journals = {
        user: Journal(daemon.machine.config_dir / "state.db", evidence.members[user])
        for user, daemon in evidence.daemons.items()
    }
    false = list(seen.wrong)
    for user, journal in journals.items():
        assert journal.roster.head == evidence.roster.head
        false += [f"{user} complains of honest peers: {complaint}" for complaint in journal.complaints()]
    received = {user: journal.received() for user, journal in journals.items()}
    sent = {row.message_id: row for journal in journals.values() for row in journal.sent()}
    lost = find_lost(seen, sent, received, inboxes)
    double = seen.twice + find_double(received, inboxes)
    false += find_false(evidence, seen, journals, received)
    false += find_denied(seen, sent)
    return lost, double, false


def find_lost(
    seen: Seen, sent: dict[str, Sent], received: dict[str, list[Received]], inboxes: dict[str, list[dict[str, Any]]]
) -> list[str]:
    """Messages that a daemon or the broker once had and whose recipient has them not, or not as they were written."""
    lost = []
    at_peer = {(user, row.message_id): row for user, rows in received.items() for row in rows}
    listed = {(user, message["id"]): message["text"] for user, messages in inboxes.items() for message in messages}
    surfaced = {(one.reader, one.id): one.text for one in seen.surfaced}
    for letter in seen.letters.values():
        row, key = sent.get(letter.id), (letter.to, letter.id)
        if row is None and not letter.answered:
            continue  # the request was cut off before it was durable, and nobody was told otherwise
        if row is None or row.stage not in _DELIVERED_STAGES:
            lost.append(f"{letter.id}: {row and row.state} {row and row.stage}")
        for texts in ({key: at.text for key, at in at_peer.items()}.get(key), listed.get(key), surfaced.get(key)):
            if texts != letter.text:
                lost.append(f"{letter.id} from {letter.sender} to {letter.to} is not at its recipient")
    return lost


def find_double(received: dict[str, list[Received]], inboxes: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Messages that are in an inbox twice, and counters of a session that were used twice."""
    double = []
    for user, rows in received.items():
        for kind, keys in (
            ("message", [row.message_id for row in rows]),
            ("listed", [message["id"] for message in inboxes[user]]),
            ("counter", [(row.session, row.counter) for row in rows]),
        ):
            double += [f"{user}: {kind} {key} {count} times" for key, count in Counter(keys).items() if count > 1]
    return double


def find_false(
    evidence: Evidence, seen: Seen, journals: dict[str, Journal], received: dict[str, list[Received]]
) -> list[str]:
    """Stages that were reported, and did not happen or not until then. Evidence was verified when it was read."""
    false: list[str] = []
    audit = evidence.audit
    users = {member: user for user, member in evidence.members.items()}
    at_peer = {(user, row.message_id): row for user, rows in received.items() for row in rows}
    steps = {(step.message_id, step.stage): step for journal in journals.values() for step in journal.steps()}
    for step in steps.values():
        row = at_peer.get((users[step.to], step.message_id))
        if step.audit_row is not None and audit.hashes[step.audit_row[0]] != step.audit_row[1]:
            false.append(f"{step.message_id}: the audit log does not hold its acceptance")
        if step.stage == "delivered" and (row is None or row.received_at > step.at):
            false.append(f"{step.message_id}: delivered before its recipient had it")
        if step.stage == "read" and step.message_id not in seen.read_tried:
            false.append(f"{step.message_id}: read, and no agent confirmed it")
    for letter in seen.letters.values():
        for report in letter.reports.values():
            false += check_report(letter, report, steps, evidence)
    return false


def find_denied(seen: Seen, sent: dict[str, Sent]) -> list[str]:
    """Messages that a daemon has though its only answer was that nothing took effect."""
    denied = [one for one in seen.letters.values() if one.refused and not one.answered and not one.cut_off]
    return [f"{letter.id}: refused, and sent all the same" for letter in denied if letter.id in sent]


def check_report(
    letter: Letter, report: Report, steps: Mapping[tuple[str, str], Step], evidence: Evidence
) -> Iterator[str]:
    """A stage that somebody was told has a step, and what the step is about had happened by then."""
    if report.stage == "queued":
        return
    step = steps.get((letter.id, report.stage))
    if step is None:
        yield f"{letter.id}: {report.stage} was reported, and its timeline does not know it"
        return
    happened_at = earliest(step, letter.to, evidence)
    if happened_at is None:
        yield f"{letter.id}: {report.stage} is dated {step.at}, which the clock of {letter.to} never showed"
    elif happened_at > report.told_at:
        yield f"{letter.id}: {report.stage} was reported {happened_at - report.told_at} ms before it happened"


def earliest(step: Step, recipient: str, evidence: Evidence) -> int | None:
    """When a step may have happened at the earliest, by the true time, as its witness's clock dates it."""
    if step.audit_row is not None:
        return evidence.audit.created_at[step.audit_row[0]] - evidence.clock_error_ms
    if recipient not in evidence.clocks:
        return step.at - evidence.clock_error_ms
    return next(iter(evidence.clocks[recipient].true_times(step.at)), None)
