"""Nothing that was accepted is lost, surfaced twice or misreported, whatever process is killed at whatever moment.

Three users' daemons and a broker are killed at random and at chosen moments while everybody writes to everybody.
`FAULTS` is the number of kills, `FAULTS_SEED` repeats the choices of a run (not its timing).
"""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.faults.injector import Faults, Injector
from tests.faults.journals import broker_audit, broker_roster
from tests.faults.life import USERS, Life, enrol, list_inbox
from tests.faults.oracle import Evidence, check
from tests.faults.seen import Seen
from tests.faults.victims import BrokerVictim, DaemonVictim, Victim, start
from tests.processes import BrokerProcess, free_port, machine, wait_until

KILLS: Final = int(os.environ.get("FAULTS", "200"))
SEED: Final = os.environ.get("FAULTS_SEED") or f"{random.SystemRandom().getrandbits(32):08x}"
HEALS_WITHIN_S: Final = 60
SECONDS_PER_KILL: Final = 4


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


@pytest.mark.timeout(240 + SECONDS_PER_KILL * KILLS)
def test_kills_lose_nothing_repeat_nothing_and_invent_nothing(
    world: World, record_property: Callable[[str, object], None]
) -> None:
    """Invariants D1 to D5 of docs/spec/delivery.md under kill -9 of every process."""
    life = Life(world.daemons, SEED)
    faults = Faults(KILLS)

    life.begin()
    inject(world, life.seen, faults)
    life.stop_writing()
    with suppress(AssertionError):  # whatever is not delivered by then is counted as lost
        wait_until(lambda: not life.seen.unfinished(), "every queued message is delivered", HEALS_WITHIN_S)
    inboxes = {user: list_inbox(daemon) for user, daemon in world.daemons.items()}
    life.end(world.daemons)

    evidence = Evidence(world.daemons, world.members, broker_roster(world.database), broker_audit(world.database))
    lost, double, false = check(evidence, life.seen, inboxes)
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
