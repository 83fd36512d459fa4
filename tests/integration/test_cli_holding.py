"""Loops, budgets and quiet by commands, with two daemons: what a person is told, and what a person can do."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.daemon.ipc import AnsweredError, Client
from claudemesh.errors import ClaudemeshError
from tests.integration.test_cli_terminal import at_terminal
from tests.processes import BrokerProcess, Machine, free_port, introduce, machine, wait_until

# Joined here, so that nobody's scanner takes this file for a leak.
TOKEN = "ghp" + "_" + "16C7e42F292c6912E7710c838347Ae178B4a"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """Alice and Bob, each with a daemon, in one mesh, who know each other's names."""
    with ExitStack() as stack:
        broker = BrokerProcess(tmp_path / "broker", free_port())
        broker.start()
        stack.callback(broker.kill)
        alice, bob = (stack.enter_context(machine(tmp_path, name)) for name in ("alice", "bob"))
        introduce(broker, alice, bob, devices=("box", "box"))
        yield alice, bob


class AutoReply(threading.Thread):
    """An agent's session that answers everything at once: `watch --session`, and `send --as` with what it answers."""

    def __init__(self, one: Machine, label: str) -> None:
        super().__init__(daemon=True)
        self.label = label
        self.shown: list[Any] = []
        self.told: list[Any] = []
        """What it was told is held for its person."""
        self.watching = threading.Event()
        self._socket = ConfigDir(one.config_dir).socket()

    def run(self) -> None:
        """Answer until the daemon ends."""
        with suppress(ClaudemeshError, AnsweredError, OSError), Client(self._socket, None) as client:
            for event in client.stream("watch", {"mesh": "team", "session": self.label}):
                self.watching.set()
                self.told += [event["held"]] if "held" in event else []
                if "message" in event:
                    self._answer(event["message"])

    def _answer(self, message: Any) -> None:
        self.shown.append(message)
        with Client(self._socket, 60) as client:
            client.call("inbox.shown", {"mesh": "team", "numbers": [message["number"]]})
            text = f"{self.label} answers for the {len(self.shown)}th time"
            to, answers = message["sender"]["address"], message["id"]
            client.call("send", {"to": to, "text": text, "reply_to": answers, "session": self.label})


def test_two_agents_on_two_machines_are_stopped_and_a_person_decides(pair: tuple[Machine, Machine]) -> None:
    """The loop ends by itself after nine messages; both ends say why; what a person releases goes on by one answer."""
    alice, bob = pair
    agents = [AutoReply(alice, "one"), AutoReply(bob, "two")]
    for agent in agents:
        agent.start()
        assert agent.watching.wait(30)

    first = alice.ok("send", "bob.box", "shall we talk?", "--as", "one")
    wait_until(lambda: alice.ok("hold", "list")["held"] or bob.ok("hold", "list")["held"], "a message is held")
    holder, other = (alice, bob) if alice.ok("hold", "list")["held"] else (bob, alice)
    (held,) = holder.ok("hold", "list")["held"]

    shown = sum(len(agent.shown) for agent in agents)
    print(f"{shown} messages were shown to the two agents, then one was held: {held['reason']}, {held['reached']} hops")
    assert shown == 9
    assert (held["reason"], held["reached"], held["allowed"]) == ("hops", 9, 8)
    drawn = holder.run("hold", "list").stdout
    assert "held (hops: 9 answers after the first message of its conversation; 8 need nobody)" in drawn
    assert "It grants no permission" in drawn
    assert holder.inbox() == []
    assert [(one["id"], one["reason"]) for agent in agents for one in agent.told] == [(held["message"]["id"], "hops")]
    wait_until(lambda: other.ok("message", held["message"]["id"])["stage"] == "held", "the writer is told")
    assert other.ok("message", held["message"]["id"])["steps"][-1]["code"] == "hops"
    assert holder.ok("mesh", "list")["meshes"][0]["held"] == 1

    holder.ok("hold", "release", held["message"]["id"][:8])

    wait_until(lambda: sum(len(agent.shown) for agent in agents) == 10, "the released message is shown")
    wait_until(lambda: other.ok("hold", "list")["held"], "its answer is held at the other end")
    (next_held,) = other.ok("hold", "list")["held"]
    assert next_held["reached"] == 10
    assert first["id"]

    other.ok("hold", "refuse", "--all")

    wait_until(lambda: holder.ok("message", next_held["message"]["id"])["stage"] == "refused", "its sender is told")
    assert holder.ok("message", next_held["message"]["id"])["steps"][-1]["code"] == "declined"
    assert other.ok("hold", "list")["held"] == []


def test_pause_stops_agents_and_leaves_people(pair: tuple[Machine, Machine]) -> None:
    """At once and across a restart; status, doctor and the list of meshes say so."""
    alice, bob = pair
    agent = AutoReply(bob, "agent")
    agent.start()
    assert agent.watching.wait(30)

    state = bob.ok("pause")

    assert state["paused_since"] > 0
    assert "paused" in bob.run("pause").stdout
    sent = alice.ok("send", "bob.box", "hello?", "--wait", "delivered")
    assert (sent["stage"], sent["to"][0]["code"]) == ("held", "paused")
    assert agent.shown == []
    assert [message["text"] for message in bob.inbox()] == ["hello?"]
    assert bob.fails("send", "alice.box", "by a script")["code"] == "paused"
    assert "accepted" in at_terminal(bob, "send", "alice.box", "typed by a person")
    wait_until(lambda: alice.inbox(), "the person's message arrives")
    bob.ok("daemon", "stop")
    assert "agents paused" in bob.run("mesh", "list").stdout
    assert bob.ok("daemon", "status")["meshes"][0]["paused_since"] == state["paused_since"]
    checks = {check["name"]: check["detail"] for check in bob.ok("doctor")["checks"]}
    assert checks["agents"].startswith("paused")
    assert bob.fails("send", "alice.box", "by a script")["code"] == "paused"

    assert bob.ok("resume")["paused_since"] == 0

    bob.ok("send", "alice.box", "by a script")


def test_do_not_disturb_is_said_to_the_sender(pair: tuple[Machine, Machine]) -> None:
    """A message waits for that reason; one that may interrupt does not."""
    alice, bob = pair
    bob.ok("dnd", "on")
    bob.ok("grant", "alice", "now")

    agent = AutoReply(bob, "agent")
    agent.start()
    assert agent.watching.wait(30)
    waits = alice.ok("send", "bob.box", "when you have time", "--wait", "delivered")
    urgent = alice.ok("send", "bob.box", "at once", "--priority", "now", "--wait", "replied")

    assert (waits["stage"], waits["to"][0]["code"]) == ("held", "dnd")
    assert urgent["stage"] == "replied"
    assert [message["text"] for message in agent.shown] == ["at once"]
    assert "only what may interrupt" in bob.run("dnd", "on").stdout
    assert bob.ok("dnd", "off")["dnd_since"] == 0
    wait_until(lambda: len(agent.shown) == 2, "the rest is shown")
    assert agent.shown[1]["text"] == "when you have time"


def test_budgets_are_shown_and_changed(pair: tuple[Machine, Machine]) -> None:
    """For everybody or for one peer; a misspelt one changes nothing."""
    alice, _ = pair

    assert {one["name"]: one["amount"] for one in alice.ok("budget")["budgets"]} == {
        "hops": 8,
        "pair": 20,
        "session": 100,
        "sends": 100,
    }
    changed = alice.ok("budget", "hops", "20", "--peer", "bob.box")["budgets"]
    assert [(one["amount"], one["address"]) for one in changed if one["address"]] == [(20, "bob.box")]
    assert "20" in alice.run("budget").stdout
    for wrong in (["budget", "hop", "1"], ["budget", "hops"], ["budget", "hops", "-1"], ["budget", "--peer", "bob"]):
        assert alice.fails(*wrong)["exit_code"] == 2
    assert alice.fails("budget", "sends", "3", "--peer", "bob")["exit_code"] == 2
    assert alice.fails("hold", "release")["exit_code"] == 2
    assert alice.fails("hold", "release", "0123abcd")["code"] == "unknown_message"
    dropped = alice.ok("budget", "hops", "--default", "--peer", "bob.box")["budgets"]
    assert not any(one["decided"] for one in dropped)


def test_whatever_is_held_can_be_listed_and_decided(pair: tuple[Machine, Machine]) -> None:
    """A peer whose messages are as long as they may be hides nothing from the person, who sees how each begins."""
    alice, bob = pair
    bob.ok("budget", "pair", "0")
    for number in range(9):
        text = f"{number} " + "x" * 500_000
        assert alice.ok("send", "bob.box", "-", "--wait", "delivered", stdin=text, CLAUDECODE="1")["stage"] == "held"

    listed = bob.ok("hold", "list")
    drawn = bob.run("hold", "list").stdout
    released = bob.ok("hold", "release", "--all")

    assert [one["message"]["text"][:3] for one in listed["held"]] == [f"{number} x" for number in range(9)]
    assert {one["characters"] for one in listed["held"]} == {500_002}
    assert listed["more"] == 0
    assert drawn.count(" of 500,002 characters") == 9
    assert len(released["held"]) == 9
    assert bob.ok("hold", "list")["held"] == []


def test_a_credential_is_not_sent_unless_that_is_wanted(pair: tuple[Machine, Machine]) -> None:
    """The line and the kind are named; the text stands in no answer, no log and no file of the sender."""
    alice, bob = pair
    text = f"here it is:\nkey {TOKEN}\n"

    error = alice.fails("send", "bob.box", "-", stdin=text)
    drawn = alice.run("send", "bob.box", "-", stdin=text)

    assert (error["code"], error["exit_code"]) == ("credential", 3)
    assert "line 2 looks like a credential (GitHub Token)" in error["message"]
    assert TOKEN not in str(error) + drawn.stdout + drawn.stderr
    assert not any(TOKEN.encode() in file.read_bytes() for file in alice.config_dir.iterdir() if file.is_file())
    assert bob.inbox() == []

    job = str(alice.home / "job.session")
    alice.ok("session", "--caps", "dm", "--label", "job", "--out", job)
    assert alice.fails("--session", job, "send", "bob.box", "-", stdin=text)["code"] == "credential"

    alice.ok("send", "bob.box", "-", "--allow-secret", "--wait", "delivered", stdin=text)
    assert TOKEN in bob.inbox()[0]["text"]


def test_an_agent_that_uses_the_command_in_its_shell_counts_as_one(pair: tuple[Machine, Machine]) -> None:
    """Its host says so: the same text twice is held, where a script may send it."""
    alice, bob = pair
    for _ in range(2):
        alice.ok("send", "bob.box", "are you there?", "--wait", "delivered")
    alice.ok("send", "bob.box", "hello?", "--wait", "delivered", CLAUDECODE="1")

    again = alice.ok("send", "bob.box", "hello?", "--wait", "delivered", CLAUDECODE="1")

    assert (again["stage"], again["to"][0]["code"]) == ("held", "repeat")
    assert [message["text"] for message in bob.inbox()] == ["are you there?", "are you there?", "hello?"]
