"""Kills, at the moments that hurt: while a commit is on its way to the disk, right after an answer, while starting.

Nothing in the product helps. A commit shows from outside, because the write-ahead log of the database grows before
it is synced; a delay of nothing to 50 ms after that reaches every step between two commits.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.faults.seen import EVENTS, Seen
from tests.faults.victims import Victim, wait_ready

MOMENTS: Final = ("any", "own commit", "other's commit", "other's commit", "event")
LONGEST_DELAYS_S: Final = (0.0, 0.002, 0.005, 0.01, 0.05)
"""After the moment; from a commit to the next step of the message in another process it takes one to ten ms."""
DOWN_S: Final = (0.0, 0.0, 0.1, 0.5)
MOMENT_WITHIN_S: Final = 1.5
ALIVE_S: Final = 1.0
"""Longest time that a victim is left alone after it came back: a life without a kill would test nothing."""
DIES_YOUNG: Final = 0.15
"""Share of the restarts that are killed before the victim serves."""
_COMMIT_POLL_S: Final = 0.000_2


class Faults:
    """How many kills there are to be, over all victims."""

    def __init__(self, wanted: int) -> None:
        self._left = wanted
        self._lock = threading.Lock()
        self.moments: Counter[str] = Counter()
        """Kills by victim and moment."""
        self.kinds: Counter[str] = Counter()
        self.over = threading.Event()

    def take(self) -> bool:
        """Claim one kill; False when there were enough."""
        with self._lock:
            self._left -= 1
            if self._left < 0:
                self.over.set()
            return self._left >= 0

    def note(self, victim: str, moment: str) -> None:
        """A kill has happened."""
        with self._lock:
            self.moments[f"{victim} {moment}"] += 1
            self.kinds["lone broker killed" if victim == "broker" else "daemon killed"] += 1


class Injector:
    """Kills one victim again and again, and starts it again; all injectors together share the number of kills."""

    def __init__(self, victim: Victim, others: Sequence[Path], seen: Seen, faults: Faults, rng: random.Random) -> None:
        """`others` are the databases at whose commits the victim is killed, besides its own."""
        self.victim = victim
        self._others = others
        self._seen = seen
        self._faults = faults
        self._rng = rng
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Wait until the kills are over and the victim serves again; raise what went wrong."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - raised by `join`
            self._failure = error
            self._faults.over.set()

    def _run(self) -> None:
        while not self._faults.over.is_set():
            self._faults.over.wait(self._rng.uniform(0, ALIVE_S))
            moment = self._await_moment()
            while self._faults.take():
                self._faults.note(self.victim.name, moment)
                self.victim.kill()
                time.sleep(self._rng.choice(DOWN_S))
                self.victim.spawn()
                if self._rng.random() >= DIES_YOUNG:
                    break
                moment = "starting"
                time.sleep(self._rng.uniform(0, 0.6))
            wait_ready(self.victim)

    def _await_moment(self) -> str:
        moment = self._rng.choice(MOMENTS)
        match moment:
            case "own commit":
                self._await_commit(self.victim.journal)
            case "other's commit":
                self._await_commit(self._rng.choice(self._others))
            case "event":
                moment = self._rng.choice(EVENTS)
                self._seen.wait_for(moment, MOMENT_WITHIN_S)
            case _:
                time.sleep(self._rng.uniform(0, 0.5))
        time.sleep(self._rng.uniform(0, self._rng.choice(LONGEST_DELAYS_S)))
        return moment

    def _await_commit(self, journal: Path) -> None:
        before, deadline = _version(journal), time.monotonic() + MOMENT_WITHIN_S
        while _version(journal) == before and time.monotonic() < deadline and not self._faults.over.is_set():
            time.sleep(_COMMIT_POLL_S)


def _version(journal: Path) -> tuple[int, int]:
    try:
        status = journal.stat()
    except FileNotFoundError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)
