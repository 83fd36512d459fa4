"""A cluster under faults of every kind loses nothing, shows nothing twice, misreports nothing, and heals by itself.

Nodes, PostgreSQL, NATS and daemons are killed and frozen, cables pulled, frames repeated and reordered, clocks set
wrong, disks filled: several at a time, to whoever is whole.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from tests.faults.cluster_faults import Deck, Menu
from tests.faults.cluster_world import ClusterWorld, cluster_world
from tests.faults.journals import cluster_audit, cluster_roster
from tests.faults.life import Life, list_inbox
from tests.faults.oracle import Evidence, check
from tests.faults.tally import SEED, Tally, share
from tests.processes import wait_until

FAULTS: Final = share("cluster")
AT_ONCE: Final = 3
CLOCK_ERROR_MS: Final = 250
"""Half of the slowest beat that a node has to set its clock by, on a machine with nothing to spare."""
PAUSE_S: Final = 0.6
HEALS_WITHIN_S: Final = 150
"""Whoever was cut off without a word is given up after 75 s of silence, and dials again within 30 s."""
SECONDS_PER_FAULT: Final = 8


@pytest.mark.timeout(300 + SECONDS_PER_FAULT * FAULTS)
async def test_a_cluster_loses_nothing_repeats_nothing_and_heals(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Invariants D1 to D5 of docs/spec/delivery.md, with the roster and the audit chain of the shared database."""
    async with cluster_world(tmp_path, random.Random(f"{SEED} middle")) as world:
        rng = random.Random(f"{SEED} cluster")
        deck, life = Deck(Menu(world, rng).faults(), rng), Life(world.daemons, SEED)
        life.begin()
        await inject(deck)
        await asyncio.to_thread(life.stop_writing)
        with suppress(AssertionError):  # whatever is not delivered by then is counted as lost
            delivered = "every queued message is delivered"
            await asyncio.to_thread(wait_until, lambda: not life.seen.unfinished(), delivered, HEALS_WITHIN_S)
        if unfinished := life.seen.unfinished():
            print(Counter((one.sender, one.to, one.furthest) for one in unfinished))
            print(await asyncio.to_thread(world.diagnosis))
        inboxes = {user: await asyncio.to_thread(list_inbox, daemon) for user, daemon in world.daemons.items()}
        await asyncio.to_thread(life.end, world.daemons)
        server = world.postgres.server
        roster, audit = cluster_roster(server, world.database), cluster_audit(server, world.database)
        evidence = Evidence(world.daemons, world.members, roster, audit, CLOCK_ERROR_MS, world.clocks)
        tally = Tally(deck.done, len(life.seen.letters), *check(evidence, life.seen, inboxes))
        record_property("summary", bites(world, life))

    tally.record(record_property)
    tally.require_flawless(FAULTS)


def bites(world: ClusterWorld, life: Life) -> str:
    """That the faults were some, in words."""
    frames, refused = world.middle.spoilt, sum(letter.refused for letter in life.seen.letters.values())
    return (
        f"{frames['repeated']} frames repeated, {frames['reordered']} reordered; {world.buried()} living nodes buried;"
        f" {refused} messages refused by a full disk, {world.postgres.server.refused_for_space()} writes of PostgreSQL;"
        f" {sum(len(user.clock.jumps) for user in world.users.values())} clocks of daemons set"
    )


async def inject(deck: Deck) -> None:
    """Have things go wrong, `AT_ONCE` at a time, until it was often enough; afterwards everything runs."""

    async def one_after_the_other() -> None:
        while deck.done.total() < FAULTS:
            await deck.play()
            await asyncio.sleep(PAUSE_S)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(one_after_the_other())
