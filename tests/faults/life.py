"""Three users of one mesh who write to each other all the time, whatever happens to the processes between them."""

import queue
import random
import threading
from typing import Any, Final

from tests.faults.seen import Seen
from tests.faults.traffic import Agent, Asker, Citizen, Sender
from tests.faults.victims import DaemonVictim
from tests.processes import Machine, wait_until

USERS: Final = ("alice", "bob", "carol")
UNLIMITED: Final = 100_000
"""What agents may cause here: they answer each other as fast as they can, and are to be stopped by faults alone."""
WRITERS: Final = 4
"""For each user, so that messages are always in flight."""


class Life:
    """All users and agents, and what they saw."""

    def __init__(self, daemons: dict[str, DaemonVictim], seed: str) -> None:
        self.seen = Seen()
        self._writing, self._living = threading.Event(), threading.Event()
        self._senders: list[Citizen] = []
        self._others: list[Citizen] = []
        for user, daemon in daemons.items():
            others = {other: f"{other}.box" for other in USERS if other != user}
            answers: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
            for number in range(WRITERS):
                rng = random.Random(f"{seed} sender {user} {number}")
                self._senders.append(Sender(others, answers, daemon, self.seen, rng, self._writing))
            rest = (daemon, self.seen, random.Random(f"{seed} reader {user}"), self._living)
            self._others += [Asker(*rest), Agent(answers, *rest)]

    def begin(self) -> None:
        for citizen in (*self._senders, *self._others):
            citizen.begin()

    def stop_writing(self) -> None:
        """No new messages; those that are on their way go on."""
        self._writing.set()
        for sender in self._senders:
            sender.join()

    def end(self, daemons: dict[str, DaemonVictim]) -> None:
        """Stop the daemons as a service manager does, which also ends what the agents wait for."""
        self._living.set()
        for daemon in daemons.values():
            assert daemon.stop() == 0
        for citizen in self._others:
            citizen.join()


def enrol(machines: dict[str, Machine], url: str) -> None:
    """Found the mesh, join it, and wait until names are known."""
    founder, *others = machines.values()
    founder.ok("mesh", "create", "team", "--broker", url, "--name", "alice", "--device", "box")
    link = founder.ok("invite", "--uses", str(len(others)))["link"]
    for user, one in list(machines.items())[1:]:
        one.ok("join", "-", "--name", user, "--device", "box", stdin=link)
    for one in machines.values():
        for budget in ("hops", "pair", "session", "sends"):
            one.ok("budget", budget, str(UNLIMITED))
    everybody = {f"{user}.box" for user in machines}
    for one in machines.values():
        wait_until(lambda one=one: {peer["address"] for peer in one.ok("peers")["peers"]} == everybody, "names")


def list_inbox(daemon: DaemonVictim) -> list[dict[str, Any]]:
    """Everything that the user's inbox lists."""
    with daemon.client() as client:
        events = list(client.stream("inbox", {"unread": False, "limit": 10_000}))
    return [event["message"] for event in events]
