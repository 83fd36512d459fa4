"""A busy Codex and a busy Gemini CLI, the real programs: what is urgent comes next, the rest at the end of the turn."""

import threading
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.hosts.conftest import Mesh
from tests.hosts.others import Headless
from tests.hosts.simulated_gemini import simulated_gemini
from tests.hosts.simulated_models import Block, Body, Call, Say, Script, SimulatedModels
from tests.hosts.simulated_openai import simulated_openai
from tests.processes import wait_until

THINKS_AT_MOST_S = 60
DONE = {"to": "alice.laptop", "text": "I rebased"}


class Busy(NamedTuple):
    """How one host is made busy."""

    models: Callable[[Script], SimulatedModels]
    call: Call
    """A tool that needs nothing and changes nothing; any tool's end is a moment."""
    send: Call
    """Writes to Alice, and does not say what it answers."""
    options: tuple[str, ...] = ()


HOSTS = {
    "codex": Busy(
        lambda script: simulated_openai(codex=script),
        Call("mesh_self", {}, "mcp__claudemesh"),
        Call("mesh_send", DONE, "mcp__claudemesh"),
        ("--dangerously-bypass-hook-trust",),  # stands for a user who has trusted the hooks by `/hooks`
    ),
    "gemini": Busy(simulated_gemini, Call("mcp_claudemesh_mesh_self", {}), Call("mcp_claudemesh_mesh_send", DONE)),
}


@pytest.mark.parametrize("name", HOSTS)
def test_a_busy_session_reads_what_is_urgent_in_the_next_request_and_the_rest_at_the_end(mesh: Mesh, name: str) -> None:
    """`now` comes with the tool's result, `next` when the turn would end: the turn then goes on, and both are read."""
    goes_on = threading.Event()

    def script(_body: Body, number: int) -> list[Block]:
        if number == 0:
            assert goes_on.wait(THINKS_AT_MOST_S)
            return [HOSTS[name].call]
        return [Say(f"reply {number}")]

    models = HOSTS[name].models(script)
    host = Headless(mesh.bob, name, models.url)
    host.set_up()
    mesh.bob.ok("grant", "alice", "now")
    process = host.start("work on it", *HOSTS[name].options)
    try:
        wait_until(lambda: len(models.requests) == 1, "the model is asked")
        later = mesh.send("when you are done, rebase")
        urgent = mesh.send("stop, main is broken", "--priority", "now")
        goes_on.set()
        process.communicate(timeout=THINKS_AT_MOST_S)
    finally:
        process.kill()
        models.close()

    shown = [
        (request.text.count("| stop, main is broken"), request.text.count("| when you are done, rebase"))
        for request in models.requests
    ]
    assert shown[:3] == [(0, 0), (1, 0), (1, 1)]
    for message_id in (urgent, later):
        mesh.wait_for_stages(message_id, ["offered", "read"])
    assert not models.errors


@pytest.mark.parametrize("name", HOSTS)
def test_what_a_turn_that_goes_on_writes_continues_what_it_was_shown(mesh: Mesh, name: str) -> None:
    """Whatever a host reports when a turn goes on, no user spoke: else a loop would begin anew with each message."""
    goes_on = threading.Event()

    def script(_body: Body, number: int) -> list[Block]:
        assert goes_on.wait(THINKS_AT_MOST_S)
        return [HOSTS[name].send if number == 1 else Say(f"reply {number}")]

    models = HOSTS[name].models(script)
    host = Headless(mesh.bob, name, models.url)
    host.set_up()
    mesh.alice.ok("budget", "hops", "0")
    process = host.start("work on it", *HOSTS[name].options)
    try:
        wait_until(lambda: len(models.requests) == 1, "the model is asked")
        mesh.send("when you are done, rebase")
        goes_on.set()
        process.communicate(timeout=THINKS_AT_MOST_S)
        wait_until(lambda: mesh.alice.ok("hold", "list")["held"], "it is held")
    finally:
        process.kill()
        models.close()

    (held,) = mesh.alice.ok("hold", "list")["held"]
    assert (held["message"]["text"], held["reason"]) == ("I rebased", "hops")
    assert not models.errors
