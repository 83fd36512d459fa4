"""A cluster under faults of every kind loses nothing, shows nothing twice, misreports nothing, and heals by itself.

Nodes, PostgreSQL and NATS are killed and frozen, the network is cut and falls silent, daemons die, two at a time.
`FAULTS` (a fifth of it) is the number of faults, `FAULTS_SEED` repeats the choices of a run (not its timing).
"""

import asyncio
import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from tests.faults.cluster_world import ClusterWorld, cluster_world
from tests.faults.journals import cluster_audit, cluster_roster
from tests.faults.life import Life, list_inbox
from tests.faults.oracle import Evidence, check
from tests.postgres import PostgresServer, postgres_server
from tests.processes import wait_until

FAULTS: Final = int(os.environ.get("FAULTS", "200")) // 5
SEED: Final = os.environ.get("FAULTS_SEED") or f"{random.SystemRandom().getrandbits(32):08x}"
AT_ONCE: Final = 2
CLOCK_ERROR_MS: Final = 250
"""Half of the slowest beat that a node has to set its clock by, on a machine with nothing to spare."""
PAUSE_S: Final = 0.4
HEALS_WITHIN_S: Final = 90
SECONDS_PER_FAULT: Final = 8


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.mark.timeout(300 + SECONDS_PER_FAULT * FAULTS)
async def test_a_cluster_loses_nothing_repeats_nothing_and_heals(
    tmp_path: Path, postgres: PostgresServer, record_property: Callable[[str, object], None]
) -> None:
    """Invariants D1 to D5 of docs/spec/delivery.md, with the roster and the audit chain of the shared database."""
    async with cluster_world(tmp_path, postgres, random.Random(f"{SEED} cluster")) as world:
        life = Life(world.daemons, SEED)
        life.begin()
        await inject(world, FAULTS)
        await asyncio.to_thread(life.stop_writing)
        with suppress(AssertionError):  # whatever is not delivered by then is counted as lost
            delivered = "every queued message is delivered"
            await asyncio.to_thread(wait_until, lambda: not life.seen.unfinished(), delivered, HEALS_WITHIN_S)
        inboxes = {user: await asyncio.to_thread(list_inbox, daemon) for user, daemon in world.daemons.items()}
        await asyncio.to_thread(life.end, world.daemons)
        roster, audit = cluster_roster(postgres, world.database), cluster_audit(postgres, world.database)

        lost, double, false = check(
            Evidence(world.daemons, world.members, roster, audit, CLOCK_ERROR_MS), life.seen, inboxes
        )

    counts = f"{world.done.total()} faults, {len(life.seen.letters)} messages, "
    record_property("summary", f"{counts}{len(lost)} lost, {len(double)} double, {len(false)} false (seed {SEED})")
    record_property("kinds", dict(world.done))
    assert world.done.total() >= FAULTS
    assert (lost[:20], double[:20], false[:20]) == ([], [], [])


async def inject(world: ClusterWorld, wanted: int) -> None:
    """Have things go wrong, `AT_ONCE` at a time, until it was often enough; afterwards everything runs."""

    async def one_after_the_other() -> None:
        while world.done.total() < wanted:
            await world.fault()
            await asyncio.sleep(PAUSE_S)

    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))
