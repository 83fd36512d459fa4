"""Nothing that was accepted is lost, surfaced twice or misreported, whatever process is killed at whatever moment.

Three users' daemons and a broker are killed at random and at chosen moments while everybody writes to everybody.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.faults.injector import Faults, Injector
from tests.faults.life import Life
from tests.faults.lone_world import LoneWorld, lone_world
from tests.faults.seen import Seen
from tests.faults.tally import SEED, Tally, share
from tests.faults.victims import Victim

KILLS: Final = share("kills")
HEALS_WITHIN_S: Final = 60
SECONDS_PER_KILL: Final = 4


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LoneWorld]:
    """Everything that can be killed."""
    with lone_world(tmp_path) as made:
        yield made


@pytest.mark.timeout(240 + SECONDS_PER_KILL * KILLS)
def test_kills_lose_nothing_repeat_nothing_and_invent_nothing(
    world: LoneWorld, record_property: Callable[[str, object], None]
) -> None:
    """Invariants D1 to D5 of docs/spec/delivery.md under kill -9 of every process."""
    life = Life(world.daemons, SEED)
    faults = Faults(KILLS)

    life.begin()
    inject(world, life.seen, faults)
    tally = Tally(faults.kinds, len(life.seen.letters), *world.judge(life, HEALS_WITHIN_S))
    tally.record(record_property)
    record_property("moments", dict(faults.moments))
    tally.require_flawless(KILLS)


def inject(world: LoneWorld, seen: Seen, faults: Faults) -> None:
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
