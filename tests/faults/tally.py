"""How many faults a run has, shared over its worlds, and the one line that says how they ended.

`FAULTS` is their number over all worlds; `FAULTS_SEED` repeats the choices of a run (not its timing).
"""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

FAULTS: Final = int(os.environ.get("FAULTS", "100"))
_RUN: Final = os.environ.get("PYTEST_XDIST_TESTRUNUID") or random.SystemRandom().randbytes(4).hex()
SEED: Final = os.environ.get("FAULTS_SEED") or _RUN[:8]
"""One for all worlds, also when they run in processes of their own."""
SHARES: Final = {"kills": 0.5, "cluster": 0.5}
"""Of each world."""
PROPERTY: Final = "faults"
"""Of a test's report: what a world hands to the line at the end, also from another process."""


def share(world: str) -> int:
    """How many faults a world is to have."""
    return round(FAULTS * SHARES[world])


class Tally:
    """What one world did, and what came of it."""

    def __init__(
        self, kinds: Counter[str], messages: int, lost: list[str], double: list[str], false: list[str]
    ) -> None:
        self.kinds = kinds
        self.messages = messages
        self.lost = lost
        self.double = double
        self.false = false

    def record(self, record_property: Callable[[str, object], None]) -> None:
        """Hand it to the line at the end; before anything is asserted."""
        counts = {"lost": len(self.lost), "double": len(self.double), "false": len(self.false)}
        kinds = dict(self.kinds)
        record_property(PROPERTY, {"kinds": kinds, "messages": self.messages, "seed": SEED, **counts})

    def require_flawless(self, wanted: int) -> None:
        """Fail where anything was lost, came twice or was false, or where less went wrong than was to."""
        assert self.kinds.total() >= wanted
        found = {"lost": self.lost[:20], "double": self.double[:20], "false": self.false[:20]}
        assert found == {"lost": [], "double": [], "false": []}, f"seed {SEED}"


def summarise(worlds: Iterable[dict[str, Any]]) -> list[str]:
    """The line, and a second one with the faults by kind; nothing when no world ran."""
    kinds: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    seeds = []
    for world in worlds:
        kinds.update(world["kinds"])
        sums.update({name: world[name] for name in ("messages", "lost", "double", "false")})
        seeds.append(world["seed"])
    if not seeds:
        return []
    counts = f"{kinds.total():,} faults of {len(kinds)} kinds, {sums['messages']:,} messages"
    verdict = f"{sums['lost']:,} lost, {sums['double']:,} double, {sums['false']:,} false"
    by_kind = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    seed = ", ".join(dict.fromkeys(seeds))
    return [f"faults: {counts}, {verdict} (seed {seed})", f"faults by kind: {by_kind}"]
