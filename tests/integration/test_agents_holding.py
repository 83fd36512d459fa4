"""Loops and quiet at a running agent: what is held or withheld is put before it at no moment."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.agents import Host, ids
from tests.processes import Machine, introduce, machine, start_broker, wait_until

MOMENTS = ("session_start", "prompt", "tool", "turn_end", "idle_wake", "inbox")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """Alice, and Bob with an agent, in one mesh."""
    with ExitStack() as stack:
        broker = stack.enter_context(start_broker(tmp_path))
        alice, bob = (stack.enter_context(machine(tmp_path, name)) for name in ("alice", "bob"))
        introduce(broker, alice, bob, devices=("box", "box"))
        yield alice, bob


def test_a_held_message_is_shown_at_no_moment_and_once_after_its_release(pair: tuple[Machine, Machine]) -> None:
    """Neither taken nor counted; released it is like one that arrives now."""
    alice, bob = pair
    agent = Host(bob, "5e55-10n")
    agent.open()
    bob.ok("budget", "pair", "0")
    sent = alice.ok("send", "bob.box", "too much", "--wait", "delivered", CLAUDECODE="1")

    taken = [agent.take(moment) for moment in MOMENTS]

    assert sent["stage"] == "held"
    assert [(one["text"], one["waiting"]) for one in taken] == [("", 0)] * len(MOMENTS)

    bob.ok("hold", "release", "--all")

    first, second = agent.take("turn_end"), agent.take("turn_end")
    assert ids(first) == [sent["id"]]
    assert ids(second) == []


def test_in_a_paused_mesh_nothing_is_put_before_an_agent(pair: tuple[Machine, Machine]) -> None:
    """Not even when it asks; after the resume everything, once."""
    alice, bob = pair
    agent = Host(bob, "5e55-10n")
    agent.open()
    bob.ok("grant", "alice", "now")
    bob.ok("pause")
    urgent = alice.ok("send", "bob.box", "at once", "--priority", "now", "--wait", "delivered")
    later = alice.ok("send", "bob.box", "later", "--wait", "delivered")

    taken = [agent.take(moment) for moment in MOMENTS]

    assert (urgent["stage"], later["stage"]) == ("held", "held")
    assert [(one["text"], one["waiting"]) for one in taken] == [("", 0)] * len(MOMENTS)

    bob.ok("resume")

    assert ids(agent.take("turn_end")) == [urgent["id"], later["id"]]
    wait_until(lambda: alice.ok("message", later["id"])["stage"] in ("held", "offered"), "the stage goes on")


def test_an_agent_that_is_not_to_be_disturbed_gets_what_may_interrupt(pair: tuple[Machine, Machine]) -> None:
    """The rest when it asks, or afterwards."""
    alice, bob = pair
    agent = Host(bob, "5e55-10n")
    agent.open()
    bob.ok("dnd", "on")
    later = alice.ok("send", "bob.box", "later", "--wait", "delivered")

    assert ids(agent.take("turn_end")) == []
    bob.ok("grant", "alice", "now")
    urgent = alice.ok("send", "bob.box", "at once", "--priority", "now", "--wait", "delivered")
    assert ids(agent.take("tool")) == [urgent["id"]]
    assert ids(agent.take("idle_wake")) == []
    assert ids(agent.take("inbox")) == [later["id"]]


def shown_at(pair: tuple[Machine, Machine], moment: str) -> tuple[Host, Callable[[str], Any]]:
    """Bob's agent, shown a message of Alice at this moment; and how it writes to her, who lets no agent answer."""
    alice, bob = pair
    agent = Host(bob, "5e55-10n")
    label = agent.open()["label"]
    alice.ok("budget", "hops", "0")
    alice.ok("send", "bob.box", "have a look", "--wait", "delivered")
    assert "have a look" in agent.take(moment)["text"]
    return agent, lambda text: bob.ok("send", "alice.box", text, "--as", label, "--wait", "delivered")


def test_what_an_agent_writes_continues_what_it_was_shown_until_its_user_speaks(pair: tuple[Machine, Machine]) -> None:
    """It names no message that it answers; its daemon knows what was put before it in this turn."""
    agent, write = shown_at(pair, "turn_end")

    because = write("I looked")
    agent.take("prompt")
    anew = write("by the way")

    assert (because["stage"], because["to"][0]["code"]) == ("held", "hops")
    assert anew["stage"] == "delivered"


def test_the_prompt_that_a_wake_makes_is_not_its_users(pair: tuple[Machine, Machine]) -> None:
    """Hosts report it as any other: a loop that goes by waking would begin anew with each message."""
    agent, write = shown_at(pair, "idle_wake")

    agent.take("prompt")
    woken = write("I looked")
    agent.take("prompt")
    anew = write("by the way")

    assert (woken["stage"], woken["to"][0]["code"]) == ("held", "hops")
    assert anew["stage"] == "delivered"


def test_an_acknowledgement_wakes_nobody(pair: tuple[Machine, Machine]) -> None:
    """Not at the end of a turn, nor while idle; it is there when the user speaks."""
    alice, bob = pair
    agent = Host(bob, "5e55-10n")
    agent.open()
    sent = alice.ok("send", "bob.box", "thank you", "--intent", "ack", "--wait", "delivered")

    assert [ids(agent.take(moment)) for moment in ("tool", "turn_end", "idle_wake")] == [[], [], []]
    assert agent.status()["waiting"]["next"] == 0
    assert ids(agent.take("prompt")) == [sent["id"]]
