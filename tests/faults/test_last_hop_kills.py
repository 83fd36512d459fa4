"""The daemon is killed at each step from a message's arrival to its receipt: nothing is twice, lost or invented."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from claudemesh.daemon.ipc import AnsweredError
from claudemesh.errors import LocalError
from tests.agents import Host, ids, numbers
from tests.processes import Machine, introduce, machine, start_broker, wait_until

KILLS: Final = 24
STEPS: Final = ("take", "written", "handed", "confirmed")
MOMENTS: Final = ("prompt", "turn_end", "idle_wake")
DELAYS_S: Final = (0.0, 0.001, 0.003, 0.01, 0.03)
"""After the request has left; an offer is durable some milliseconds later."""


class Model:
    """What a session of an agent was shown, as its host did it: by hooks, whose answers may never come."""

    def __init__(self, host: Host, rng: random.Random) -> None:
        self.host = host
        self.unasked: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.interrupted: Counter[str] = Counter()
        self._rng = rng

    @property
    def shown(self) -> set[str]:
        return set(self.unasked) | set(self.asked)

    def live(self, moment: str, *, kill: str = "") -> bool:
        """One event of the host confirms what was written before, then a hook asks; returns whether it got anything.

        Args:
            kill: The step in which the daemon is killed: `take`, `written`, `handed` or `confirmed`.
        """
        taken = self._ask("take", kill == "take", moment=moment, adapter="test.hook", confirm="next_event")
        if not taken or not taken["offers"] or kill == "take":
            return False  # whoever kills the daemon in the midst of an answer has killed the hook as well
        (self.asked if moment == "inbox" else self.unasked).update(ids(taken))
        if kill == "written":
            self._kill(kill)
            return True
        self._ask("handed", kill == "handed", offers=numbers(taken))
        if kill == "confirmed":
            self._ask("confirm", True, offers=numbers(taken), evidence="transcript")
        return True

    def _ask(self, op: str, is_killed: bool, **args: Any) -> Any:
        """One request; None when the daemon died before it answered. The host goes on as after a failed hook."""
        killer = threading.Timer(self._rng.choice(DELAYS_S), self.host.machine.kill_daemon)
        if is_killed:
            killer.start()
        try:
            return self.host.ask(op, **args)
        except LocalError:
            return None
        except AnsweredError:
            assert op != "take"
            return None  # a new daemon does not know the session before its next event
        finally:
            if is_killed:
                killer.join()
                self._restart(op)

    def _kill(self, step: str) -> None:
        self.host.machine.kill_daemon()
        self._restart(step)

    def _restart(self, step: str) -> None:
        self.interrupted[step] += 1
        self.host.machine.ok("daemon", "start")


class Scene(NamedTuple):
    """Alice wrote; at Bob's, an agent runs and its daemon dies."""

    alice: Machine
    bob: Machine


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Two machines in one mesh."""
    with ExitStack() as stack:
        broker = stack.enter_context(start_broker(tmp_path))
        alice = stack.enter_context(machine(tmp_path, "alice"))
        bob = stack.enter_context(machine(tmp_path, "bob"))
        introduce(broker, alice, bob)
        yield Scene(alice, bob)


def stated(scene: Scene, message_id: str) -> set[str]:
    """What Alice was told of a message."""
    return {step["stage"] for step in scene.alice.ok("message", message_id)["steps"]}


def test_kills_between_offer_and_receipt(scene: Scene, record_property: Callable[[str, object], None]) -> None:
    """Unasked each message is shown at most once; each is shown; and nothing is stated of what was not."""
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    model, sent = Model(Host(scene.bob, "5e55-10n"), rng), list[str]()
    for number in range(KILLS):
        sent.append(send(scene, f"message {number}"))
        model.live(rng.choice(MOMENTS), kill=rng.choice(STEPS))
    sent.append(send(scene, "the last one"))
    while model.live("turn_end"):
        pass
    wait_until(lambda: "read" in stated(scene, sent[-1]), "receipts arrive")
    never_shown = {one: stated(scene, one) for one in sent if one not in model.shown}
    while model.live("inbox"):
        pass
    model.live("prompt")

    again = sum(count > 1 for count in (model.unasked + model.asked).values())
    record_property(
        "summary", f"seed {seed}: {dict(model.interrupted)}; {len(never_shown)} doubtful, {again} asked again"
    )
    assert max(model.unasked.values()) == 1, f"seed {seed}"
    assert [stages for stages in never_shown.values() if stages & {"offered", "read"}] == [], f"seed {seed}"
    assert model.shown == set(sent), f"seed {seed}"
    wait_until(lambda: all("read" in stated(scene, one) for one in sent), "every message is read")


def send(scene: Scene, text: str) -> str:
    """Send, and wait until it is at Bob's."""
    return str(scene.alice.ok("send", "bob.desktop", text, "--wait", "delivered")["id"])
