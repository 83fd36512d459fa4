"""What the outside was told, and when: the only thing that the checks at the end compare the journals with.

A kill can cut any answer short. So each note says only what is certain: that a request was made, that an answer
arrived, that an event was read.
"""

import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from claudemesh.protocol.delivery import Claim, Stage, Witness, rank

EVENTS: Final = ("queued", "accepted", "delivered", "surfaced", "shown", "read")


class Report(NamedTuple):
    """A stage that a sender was told, by whom it is witnessed, and until when it must have happened."""

    stage: str
    witness: str
    told_at: int
    """Unix milliseconds at which the answer had arrived."""


@dataclass(slots=True)
class Letter:
    """One message as its sender knows it."""

    id: str
    sender: str
    to: str
    text: str
    reply_to: str = ""
    answered: bool = False
    """The daemon has said at least once that the message is durable."""
    refused: bool = False
    """The daemon has said that nothing took effect."""
    cut_off: bool = False
    """A request to send it had no answer."""
    reports: dict[tuple[str, str], Report] = field(default_factory=dict)
    furthest: int = -1


class Surfaced(NamedTuple):
    """One message as one agent's session was given it."""

    session: int
    reader: str
    id: str
    sender: str
    text: str


class Seen:
    """Everything that was told to the users and their agents. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = {event: threading.Condition(self._lock) for event in EVENTS}
        self.letters: dict[str, Letter] = {}
        self.surfaced: list[Surfaced] = []
        self.shown: dict[str, set[str]] = defaultdict(set)
        """By reader: messages that the daemon confirmed to have marked as shown."""
        self.read_tried: set[str] = set()
        """Messages whose read receipt an agent has asked for."""
        self.twice: list[str] = []
        """Messages that an agent was given once too often."""
        self.wrong: list[str] = []
        """Stages that contradict what was told before."""
        self.counts: Counter[str] = Counter()
        self._sessions = 0
        self._in_session: set[tuple[int, str]] = set()

    def sending(self, letter: Letter) -> None:
        """A request to send is about to be made."""
        with self._lock:
            self.letters[letter.id] = letter

    def told(self, letter: Letter, steps: list[tuple[str, str]], shown: str) -> None:
        """The sender's daemon reported `shown` as the stage, with these (stage, witness) as its steps."""
        now = unix_millis()
        with self._lock:
            letter.answered = True
            for stage, witness in steps:
                letter.reports.setdefault((stage, witness), Report(stage, witness, now))
            self._check_order(letter, steps, shown)
            for event in {stage for stage, _ in steps} & set(EVENTS):
                self._happened(event)

    def refused(self, letter_id: str) -> None:
        """The sender's daemon said that it did not take the message."""
        with self._lock:
            self.letters[letter_id].refused = True

    def cut_off(self, letter_id: str) -> None:
        """The sender's daemon did not answer."""
        with self._lock:
            self.letters[letter_id].cut_off = True

    def open_session(self) -> int:
        """An agent begins to watch: a session of its own."""
        with self._lock:
            self._sessions += 1
            return self._sessions

    def surface(self, surfaced: Surfaced) -> None:
        """An agent was given a message."""
        with self._lock:
            if surfaced.id in self.shown[surfaced.reader]:
                self.twice.append(f"{surfaced.id} was surfaced to {surfaced.reader} after it had been marked as shown")
            if (surfaced.session, surfaced.id) in self._in_session:
                self.twice.append(f"{surfaced.id} was surfaced twice in one session of {surfaced.reader}")
            self._in_session.add((surfaced.session, surfaced.id))
            self.surfaced.append(surfaced)
            self._happened("surfaced")

    def reading(self, ids: list[str]) -> None:
        """An agent is about to confirm that a model has these messages."""
        with self._lock:
            self.read_tried.update(ids)

    def confirmed(self, reader: str, ids: list[str]) -> None:
        """The daemon answered that they are marked."""
        with self._lock:
            self.shown[reader].update(ids)
            self._happened("shown")

    def wait_for(self, event: str, timeout_s: float) -> bool:
        """Wait until something of this kind happens next."""
        with self._lock:
            return self._changed[event].wait(timeout_s)

    def unfinished(self) -> list[Letter]:
        """Letters whose delivery nobody has reported yet, the oldest first."""
        with self._lock:
            return [one for one in self.letters.values() if one.answered and one.furthest < _DELIVERED]

    def _happened(self, event: str) -> None:
        self.counts[event] += 1
        self._changed[event].notify_all()

    def _check_order(self, letter: Letter, steps: list[tuple[str, str]], shown: str) -> None:
        ranks = {stage: rank(Claim(Stage(stage), Witness(witness))) for stage, witness in steps}
        furthest = max(ranks.values(), default=-1)
        if ranks.get(shown) != furthest:
            self.wrong.append(f"{letter.id} is shown as {shown}, with the steps {steps}")
        if furthest < letter.furthest:
            self.wrong.append(f"{letter.id} went back to {shown} from rank {letter.furthest}")
        if not {key for key in letter.reports if key[0] != "queued"} <= set(steps) | {("queued", "sender")}:
            self.wrong.append(f"{letter.id} lost a step: {set(letter.reports)} became {steps}")
        letter.furthest = max(letter.furthest, furthest)


_DELIVERED: Final = rank(Claim(Stage.DELIVERED, Witness.PEER))


def unix_millis() -> int:
    """This machine's clock, which every process of the test shares."""
    return time.time_ns() // 1_000_000
