"""The world of the fault tests, with a daemon that was broken on purpose: each flaw is found for what it is."""

from pathlib import Path
from typing import Final

import pytest

from tests.faults.life import Life
from tests.faults.lone_world import lone_world
from tests.faults.victims import start
from tests.processes import wait_until

ENOUGH: Final = 30
"""Messages that Bob is given, before and after his daemon is killed."""
LIVES_S: Final = 120.0
"""At the most."""
HEALS_WITHIN_S: Final = 5.0
FORGETS: Final = """
from claudemesh.peer.incoming import Incoming

record = Incoming._record

async def forget(self, outcome):
    if not any(isinstance(one.content, str) and one.message.message_id[0] in "0123" for one in outcome.batch.judged):
        await record(self, outcome)

Incoming._record = forget
"""
"""Acknowledges messages that it has not recorded."""
SHOWS_AGAIN: Final = """
from claudemesh.peer.journal import inbox

inbox.mark_seen = lambda connection, row_ids, now: None
"""
"""Does not remember what its readers have confirmed."""
BOASTS: Final = """
from claudemesh.peer import recording
from claudemesh.protocol.delivery import Stage

owe = recording._owe

def boast(connection, mesh, judged, stage, *rest):
    owe(connection, mesh, judged, Stage.READ if stage is Stage.DELIVERED else stage, *rest)

recording._owe = boast
"""
"""Says that a message was read when it has arrived."""


@pytest.mark.parametrize(
    ("sabotage", "found"),
    [("", ""), (FORGETS, "lost"), (SHOWS_AGAIN, "double"), (BOASTS, "false")],
    ids=["none", "forgets", "shows again", "boasts"],
)
def test_a_broken_daemon_is_found_out(tmp_path: Path, sabotage: str, found: str) -> None:
    """And one that is not broken passes the same life."""
    (tmp_path / "sitecustomize.py").write_text(sabotage)
    with lone_world(tmp_path, {"PYTHONPATH": str(tmp_path)}) as world:
        life = Life(world.daemons, "sabotage")
        life.begin()
        wait_until(lambda: bobs_surfaced(life) >= ENOUGH and life.seen.shown.get("bob"), "bob reads", LIVES_S)
        world.daemons["bob"].kill()
        before = bobs_surfaced(life)
        start(world.daemons["bob"])
        wait_until(lambda: bobs_surfaced(life) >= before + ENOUGH, "bob reads again", LIVES_S)
        lost, double, false = world.judge(life, HEALS_WITHIN_S)

    flaws = {name for name, flaw in (("lost", lost), ("double", double), ("false", false)) if flaw}
    assert flaws == ({found} if found else set())


def bobs_surfaced(life: Life) -> int:
    """How many messages Bob's agents were given."""
    return sum(one.reader == "bob" for one in list(life.seen.surfaced))
