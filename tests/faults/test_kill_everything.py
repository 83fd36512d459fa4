"""Nothing that was accepted is lost, surfaced twice or misreported, whatever process is killed at whatever moment.

Three users' daemons and a broker are killed at random and at chosen moments while everybody writes to everybody.
`FAULTS` is the number of kills, `FAULTS_SEED` repeats the choices of a run (not its timing).
"""

import os
import queue
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.faults.injector import Faults, Injector
from tests.faults.journals import AuditLog, Journal, Received, Sent, broker_audit, broker_roster
from tests.faults.seen import Letter, Report, Seen
from tests.faults.traffic import Agent, Asker, Citizen, Sender
from tests.faults.victims import BrokerVictim, DaemonVictim, Victim, start
from tests.processes import BrokerProcess, Machine, free_port, machine, wait_until

KILLS: Final = int(os.environ.get("FAULTS", "200"))
SEED: Final = os.environ.get("FAULTS_SEED") or f"{random.SystemRandom().getrandbits(32):08x}"
USERS: Final = ("alice", "bob", "carol")
WRITERS: Final = 4
"""For each user, so that messages are always in flight."""
HEALS_WITHIN_S: Final = 60
SECONDS_PER_KILL: Final = 4
_DELIVERED_STAGES: Final = {"delivered", "offered", "read", "replied"}


class World(NamedTuple):
    """Three users of one mesh, all processes running."""

    broker: BrokerVictim
    database: Path
    daemons: dict[str, DaemonVictim]
    members: dict[str, str]
    """Peer keys by user."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Alice founded the mesh, Bob and Carol joined by her link, and everybody knows everybody's name."""
    with ExitStack() as stack:
        process = BrokerProcess(tmp_path / "broker", free_port(), ("--log-level", "warning"))
        broker = BrokerVictim(process)
        start(broker)
        stack.callback(broker.kill)
        machines = {user: stack.enter_context(machine(tmp_path, user)) for user in USERS}
        daemons = {user: DaemonVictim(one, user) for user, one in machines.items()}
        for daemon in daemons.values():
            daemon.machine.config_dir.mkdir(mode=0o700)
            start(daemon)
            stack.callback(daemon.kill)
        enrol(machines, process.url)
        members = {user: one.ok("whoami")["identities"][0]["peer"] for user, one in machines.items()}
        yield World(broker, process.database, daemons, members)


def enrol(machines: dict[str, Machine], url: str) -> None:
    """Found the mesh, join it, and wait until names are known."""
    founder, *others = machines.values()
    founder.ok("mesh", "create", "team", "--broker", url, "--name", "alice", "--device", "box")
    link = founder.ok("invite", "--uses", str(len(others)))["link"]
    for user, one in list(machines.items())[1:]:
        one.ok("join", "-", "--name", user, "--device", "box", stdin=link)
    everybody = {f"{user}.box" for user in machines}
    for one in machines.values():
        wait_until(lambda one=one: {peer["address"] for peer in one.ok("peers")["peers"]} == everybody, "names")


class Life:
    """All users and agents, and what they saw."""

    def __init__(self, world: World) -> None:
        self.seen = Seen()
        self._writing, self._living = threading.Event(), threading.Event()
        self._senders: list[Citizen] = []
        self._others: list[Citizen] = []
        for user, daemon in world.daemons.items():
            others = {other: f"{other}.box" for other in USERS if other != user}
            answers: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
            for number in range(WRITERS):
                rng = random.Random(f"{SEED} sender {user} {number}")
                self._senders.append(Sender(others, answers, daemon, self.seen, rng, self._writing))
            rest = (daemon, self.seen, random.Random(f"{SEED} reader {user}"), self._living)
            self._others += [Asker(*rest), Agent(answers, *rest)]

    def begin(self) -> None:
        for citizen in (*self._senders, *self._others):
            citizen.begin()

    def stop_writing(self) -> None:
        """No new messages; those that are on their way go on."""
        self._writing.set()
        for sender in self._senders:
            sender.join()

    def end(self, world: World) -> None:
        """Stop the daemons as a service manager does, which also ends what the agents wait for."""
        self._living.set()
        for daemon in world.daemons.values():
            assert daemon.stop() == 0
        for citizen in self._others:
            citizen.join()


@pytest.mark.timeout(240 + SECONDS_PER_KILL * KILLS)
def test_kills_lose_nothing_repeat_nothing_and_invent_nothing(
    world: World, record_property: Callable[[str, object], None]
) -> None:
    """Invariants D1 to D5 of docs/spec/delivery.md under kill -9 of every process."""
    life = Life(world)
    faults = Faults(KILLS)

    life.begin()
    inject(world, life.seen, faults)
    life.stop_writing()
    with suppress(AssertionError):  # whatever is not delivered by then is counted as lost
        wait_until(lambda: not life.seen.unfinished(), "every queued message is delivered", HEALS_WITHIN_S)
    inboxes = {user: list_inbox(daemon) for user, daemon in world.daemons.items()}
    life.end(world)

    lost, double, false = check(world, life.seen, inboxes)
    counts = f"{faults.count} faults, {len(life.seen.letters)} messages, "
    record_property("summary", f"{counts}{len(lost)} lost, {len(double)} double, {len(false)} false (seed {SEED})")
    record_property("moments", dict(faults.moments))
    assert faults.count >= KILLS
    assert (lost[:20], double[:20], false[:20]) == ([], [], [])


def inject(world: World, seen: Seen, faults: Faults) -> None:
    """Kill until there were enough kills; afterwards every process runs."""
    victims: list[Victim] = [world.broker, *world.daemons.values()]
    injectors = []
    for victim in victims:
        # A message is between a daemon and the broker at every step: those are the commits to be killed after.
        others = [world.broker] if victim is not world.broker else list(world.daemons.values())
        rng = random.Random(f"{SEED} kills {victim.name}")
        injectors.append(Injector(victim, [one.journal for one in others], seen, faults, rng))
    for injector in injectors:
        injector.begin()
    for injector in injectors:
        injector.join()


def list_inbox(daemon: DaemonVictim) -> list[dict[str, Any]]:
    """Everything that the user's inbox lists."""
    with daemon.client() as client:
        events = list(client.stream("inbox", {"unread": False, "limit": 10_000}))
    return [event["message"] for event in events]


def check(world: World, seen: Seen, inboxes: dict[str, list[dict[str, Any]]]) -> tuple[list[str], list[str], list[str]]:
    """What was lost, what came twice, what was claimed and did not happen."""
    roster, audit = broker_roster(world.database), broker_audit(world.database)
    journals = {
        user: Journal(daemon.machine.config_dir / "state.db", world.members[user])
        for user, daemon in world.daemons.items()
    }
    false = list(seen.wrong)
    for user, journal in journals.items():
        assert journal.roster.head == roster.head
        assert journal.complaints() == [], user
    received = {user: journal.received() for user, journal in journals.items()}
    sent = {row.message_id: row for journal in journals.values() for row in journal.sent()}
    lost = find_lost(seen, sent, received, inboxes)
    double = seen.twice + find_double(received, inboxes)
    false += find_false(world, seen, journals, received, audit)
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
    world: World, seen: Seen, journals: dict[str, Journal], received: dict[str, list[Received]], audit: AuditLog
) -> list[str]:
    """Stages that were reported, and did not happen or not until then. Evidence was verified when it was read."""
    false = []
    users = {member: user for user, member in world.members.items()}
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
            false += check_report(letter, report, steps, audit)
    return false


def check_report(letter: Letter, report: Report, steps: dict[tuple[str, str], Any], audit: AuditLog) -> Iterator[str]:
    """A stage that somebody was told has a step, and what the step is about had happened by then."""
    if report.stage == "queued":
        return
    step = steps.get((letter.id, report.stage))
    if step is None:
        yield f"{letter.id}: {report.stage} was reported, and its timeline does not know it"
        return
    happened_at = step.at if step.audit_row is None else audit.created_at[step.audit_row[0]]
    if happened_at > report.told_at:
        yield f"{letter.id}: {report.stage} was reported {happened_at - report.told_at} ms before it happened"
