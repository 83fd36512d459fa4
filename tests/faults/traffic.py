"""Users and agents under faults: they send, watch, confirm, answer and ask how far a message came, and never give up.

Each of them talks to its daemon as a command does, over the blocking client, and notes what it was told.
"""

import queue
import random
import threading
import time
from typing import Any, Final

from claudemesh.daemon.ipc import AnsweredError, Client
from claudemesh.errors import LocalError
from tests.faults.seen import Letter, Seen, Surfaced
from tests.faults.victims import DaemonVictim

PAUSE_S: Final = 0.05
"""Between two attempts to reach a daemon that is down."""
TEXT_SIZES: Final = (1, 200, 200, 200, 2_000, 30_000)
GIVES_UP: Final = 0.1
"""Share of the senders who do not repeat a request whose answer was cut off: their message may or may not exist."""
SIGNS: Final = 0.5
"""Share of the messages for which an agent signs that a model has them."""
ANSWERS: Final = 0.1
"""Share of the messages that an agent answers."""
ASKED_AT_ONCE: Final = 10
ASKS_EVERY_S: Final = 0.1
"""More would keep the daemons from their work."""


class Citizen:
    """A thread that talks to one daemon until it is told to stop."""

    def __init__(self, daemon: DaemonVictim, seen: Seen, rng: random.Random, stop: threading.Event) -> None:
        self.daemon = daemon
        self.seen = seen
        self.rng = rng
        self.stop = stop
        self.failures: list[BaseException] = []
        self._client: Client | None = None
        self._thread = threading.Thread(target=self._guarded, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Wait for its end, and raise what it failed with."""
        self._thread.join(60)
        assert not self._thread.is_alive(), f"{type(self).__name__} of {self.daemon.name} hangs"
        if self.failures:
            raise self.failures[0]

    def live(self) -> None:
        """What it does until `stop`."""
        raise NotImplementedError

    def ask(self, op: str, args: dict[str, Any]) -> dict[str, Any] | None:
        """One request; None when the connection was cut before the answer, or the disk was full."""
        try:
            if self._client is None:
                self._client = self.daemon.client()
            return self._client.call(op, args)
        except AnsweredError as error:
            if (error.error["code"], error.error["took_effect"]) != ("disk", "nothing"):
                raise
            self.refused(args)
            time.sleep(PAUSE_S)
            return None
        except LocalError:
            self.cut_off(args)
            self.hang_up()
            return None

    def refused(self, args: dict[str, Any]) -> None:
        """A request was answered: nothing of it took effect."""

    def cut_off(self, args: dict[str, Any]) -> None:
        """A request had no answer."""

    def insist(self, op: str, args: dict[str, Any]) -> dict[str, Any] | None:
        """Repeat a request until it is answered; None when the test ends before."""
        while not self.stop.is_set():
            answer = self.ask(op, args)
            if answer is not None:
                return answer
            time.sleep(PAUSE_S)
        return None

    def hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _guarded(self) -> None:
        try:
            self.live()
        except AnsweredError as error:
            self.failures.append(AssertionError(f"{type(self).__name__} of {self.daemon.name}: {error.error}"))
        except Exception as error:  # noqa: BLE001 - a thread's failure is raised by `join`
            self.failures.append(error)
        finally:
            self.hang_up()


class Sender(Citizen):
    """A user who writes to everybody, under ids of its own so that a repeated request is the same message."""

    def __init__(self, others: dict[str, str], answers: "queue.SimpleQueue[tuple[str, str]]", *citizen: Any) -> None:
        """`others` are addresses by user, `answers` messages to answer: who wrote them, and their ids."""
        super().__init__(*citizen)
        self._others = others
        self._answers = answers

    def live(self) -> None:
        while not self.stop.is_set():
            try:
                to, reply_to = self._answers.get(timeout=self.rng.uniform(0.01, 0.2))
            except queue.Empty:
                to, reply_to = self.rng.choice(sorted(self._others)), ""
            self.send(to, reply_to)

    def send(self, to: str, reply_to: str) -> None:
        """Write one letter."""
        letter_id = f"{self.rng.getrandbits(128):032x}"
        text = f"{self.daemon.name} to {to}: {letter_id} ".ljust(self.rng.choice(TEXT_SIZES), "≤")
        letter = Letter(letter_id, self.daemon.name, to, text, reply_to)
        self.seen.sending(letter)
        args = {"to": self._others[to], "text": text, "id": letter_id, "reply_to": reply_to}
        args |= {"priority": self.rng.choice(("now", "next", "next", "low"))}
        ask = self.ask if self.rng.random() < GIVES_UP else self.insist
        answer = ask("send", args)
        if answer is not None:
            witness = {"queued": "sender", "accepted": "broker"}.get(answer["stage"], "peer")
            self.seen.told(letter, [("queued", "sender"), (answer["stage"], witness)], answer["stage"])

    def refused(self, args: dict[str, Any]) -> None:
        self.seen.refused(args["id"])

    def cut_off(self, args: dict[str, Any]) -> None:
        self.seen.cut_off(args["id"])


class Asker(Citizen):
    """A user who looks again and again how far the own messages have come."""

    def live(self) -> None:
        while not self.stop.is_set():
            mine = [one for one in self.seen.unfinished() if one.sender == self.daemon.name]
            for letter in self.rng.sample(mine, min(ASKED_AT_ONCE, len(mine))):
                if self.stop.is_set():
                    break
                self.look(letter)
            time.sleep(ASKS_EVERY_S)

    def look(self, letter: Letter) -> None:
        """Ask for one message's timeline."""
        answer = self.ask("message", {"id": letter.id})
        if answer is None:
            time.sleep(PAUSE_S)
            return
        steps = [(step["stage"], step["witness"]) for step in answer["steps"]]
        self.seen.told(letter, steps, answer["stage"])


class Agent(Citizen):
    """An agent that watches, hands each message to a model once, and confirms it; sometimes it answers."""

    def __init__(self, answers: "queue.SimpleQueue[tuple[str, str]]", *citizen: Any) -> None:
        super().__init__(*citizen)
        self._answers = answers

    def live(self) -> None:
        while not self.stop.is_set():
            try:
                with self.daemon.client(timeout_s=None) as watch:
                    self._follow(watch)
            except AnsweredError as error:
                if error.error["code"] != "disk":
                    raise
                time.sleep(PAUSE_S)
            except LocalError:
                time.sleep(PAUSE_S)

    def _follow(self, watch: Client) -> None:
        """Take what arrives until the daemon ends: that is one session."""
        session = self.seen.open_session()
        for event in watch.stream("watch", {"session": f"agent-{session}"}):
            if "message" in event:
                self._take(session, event["message"])

    def _take(self, session: int, message: dict[str, Any]) -> None:
        me, letter_id = self.daemon.name, message["id"]
        sender = message["sender"]["address"].partition(".")[0]
        self.seen.surface(Surfaced(session, me, letter_id, sender, message["text"]))
        shown: dict[str, Any] = {"numbers": [message["number"]]}
        if self.rng.random() < SIGNS:
            self.seen.reading([letter_id])
            shown |= {"read": True, "session": f"agent-{session}"}
        try:
            if self.ask("inbox.shown", shown) is not None:
                self.seen.confirmed(me, [letter_id])
        except AnsweredError as error:
            # The daemon was killed meanwhile and this session with it; the message is then shown to the next one.
            if error.error["code"] != "unknown_address":
                raise
        if self.rng.random() < ANSWERS:
            self._answers.put((sender, letter_id))
