"""Claude Code, the real program: when a message reaches its model's requests, how often, and what its sender learns."""

import os
import re
import signal
import threading
import time
from typing import Any

import pytest

from tests.hosts.claude import Claude
from tests.hosts.conftest import Mesh
from tests.hosts.simulated_anthropic import last_tool_result
from tests.hosts.simulated_models import Block, Body, Call, Request, Say, Script, SimulatedModels, strings
from tests.processes import wait_until

SEND, ASK, INBOX = (f"mcp__claudemesh__mesh_{name}" for name in ("send", "ask", "inbox"))
THINKS_AT_MOST_S = 60
RUNS = 9


def wait_for_requests(models: SimulatedModels, model: str, count: int) -> list[Request]:
    """The requests of one model, once there are so many."""
    wait_until(lambda: len(models.of(model)) >= count, f"{count} requests of {model}")
    return models.of(model)


def wait_for_presence(mesh: Mesh, label: str) -> None:
    """Wait until Alice sees a session of Bob's that can be woken."""

    def is_there() -> bool:
        (bob,) = [one for one in mesh.alice.ok("peers")["peers"] if one["address"] == "bob.desktop"]
        return label in [one["label"] for one in bob["sessions"]]

    wait_until(is_there, f"the session {label} is in presence")


def occurrences(request: Request, body: str) -> int:
    """How often a message stands in a request."""
    return request.text.count(f"| {body}")


def test_a_plain_turn_works(mesh: Mesh, models: SimulatedModels) -> None:
    """The ground that the other tests stand on: the program, the simulated model, the namespace."""
    claude = Claude.on(mesh.bob, models, "plain")

    done = claude.ask("hello")

    assert (done.exit_code, done.stdout) == (0, "reply 0")


def test_two_sessions_converse(mesh: Mesh, models: SimulatedModels, bob: Claude) -> None:
    """Alice's agent asks, Bob's idle one is woken and answers, Alice's gets the answer in the same turn."""

    def alice_says(body: Body, number: int) -> list[Block]:
        if number == 0:
            return [Call(ASK, {"to": "bob.desktop/bob", "question": "what is 6*7?", "timeout_s": 50})]
        return [Say("ALICE GOT " + last_tool_result(body))]

    def bob_says(body: Body, number: int) -> list[Block]:
        if number == 0:
            text = "\n".join(request.text for request in models.of("bob"))
            message_id = text.split("--- message ")[1].split()[0]
            return [Call(SEND, {"to": "alice.laptop", "text": "42", "reply_to": message_id})]
        return [Say("BOB ANSWERED")]

    models.scripts.update(alice=alice_says, bob=bob_says)
    alice = Claude.on(mesh.alice, models, "alice")
    alice.set_up()
    terminal = bob.open()
    wait_for_presence(mesh, "bob")

    done = alice.ask("ask bob what 6*7 is")

    assert done.stdout.startswith("ALICE GOT"), done
    assert "| 42" in done.stdout
    terminal.wait_for("BOB ANSWERED")


def test_a_message_is_shown_once_across_rungs_resume_and_compaction(
    mesh: Mesh, models: SimulatedModels, bob: Claude
) -> None:
    """What was unread comes with the first request; later sessions of the same conversation have it from there."""
    message_id = mesh.send("remember the milk")

    first = bob.ask("hello", "--session-id", "11111111-2222-4333-8444-555555555555")
    resumed = bob.ask("go on", "--resume", "11111111-2222-4333-8444-555555555555")
    compacted = bob.ask("/compact", "--resume", "11111111-2222-4333-8444-555555555555")
    after = bob.ask("and now?", "--resume", "11111111-2222-4333-8444-555555555555")

    assert [one.exit_code for one in (first, resumed, compacted, after)] == [0, 0, 0, 0]
    assert [occurrences(one, "remember the milk") <= 1 for one in models.of("bob")] == [True] * len(models.of("bob"))
    assert occurrences(models.of("bob")[0], "remember the milk") == 1
    mesh.wait_for_stages(message_id, ["offered", "read"])


def test_a_model_cannot_call_the_tool_of_the_hooks(mesh: Mesh, models: SimulatedModels, bob: Claude) -> None:
    """It is not listed, so that Claude Code lets its hooks alone call it: by it one could read as another session."""
    called = Call("mcp__claudemesh__mesh_hook", {"event": "Stop", "session_id": "another-session"})
    models.scripts["bob"] = lambda _body, number: [Say("done") if number else called]

    done = bob.ask("hello")

    assert done.stdout.startswith("done")
    assert "No such tool available" in last_tool_result(models.of("bob")[1].body)


def test_a_session_killed_before_its_request_is_shown_the_message_when_it_goes_on(
    mesh: Mesh, models: SimulatedModels, bob: Claude
) -> None:
    """No `read` is stated for what no model saw; the conversation that goes on has the message once."""
    key = "11111111-2222-4333-8444-555555555556"
    asked = threading.Event()
    message_id = ""

    def bob_says(_body: Body, number: int) -> list[Block]:
        if number == 1:
            asked.set()
            time.sleep(THINKS_AT_MOST_S)
        return [Say(f"reply {number}")]

    models.scripts["bob"] = bob_says
    terminal = bob.open("--session-id", key)
    terminal.type("hello")
    terminal.wait_for("reply 0")
    message_id = mesh.send("the disk is full", to="bob.desktop/bob")
    assert asked.wait(30)
    os.kill(terminal.process(), signal.SIGKILL)
    assert mesh.stages(message_id) == ["offered"]
    done = bob.ask("go on", "--resume", key)

    assert done.exit_code == 0
    last = models.of("bob")[-1]
    assert occurrences(last, "the disk is full") == 1
    mesh.wait_for_stages(message_id, ["offered", "read"])


def test_a_killed_daemon_and_broker_lose_and_repeat_nothing(mesh: Mesh, models: SimulatedModels, bob: Claude) -> None:
    """Between offer and read: the session goes on, and what it was shown is read, once."""
    goes_on = threading.Event()

    def bob_says(_body: Body, number: int) -> list[Block]:
        if number == 1:
            assert goes_on.wait(THINKS_AT_MOST_S)
        return [Say(f"reply {number}")]

    models.scripts["bob"] = bob_says
    terminal = bob.open()
    terminal.type("hello")
    terminal.wait_for("reply 0")
    message_id = mesh.send("the disk is full", to="bob.desktop/bob")
    wait_for_requests(models, "bob", 2)
    mesh.bob.kill_daemon()
    mesh.broker.kill()
    mesh.broker.start()
    goes_on.set()
    terminal.wait_for("reply 1")
    terminal.type("and?")
    terminal.wait_for("reply 2")

    mesh.wait_for_stages(message_id, ["offered", "read"])
    assert [occurrences(one, "the disk is full") for one in models.of("bob")] == [0, 1, 1]


def test_a_hook_process_is_short(mesh: Mesh, bob: Claude, record_property: Any) -> None:
    """It answers; how long it took is printed, and asserted nowhere."""
    mesh.bob.ok("peers")
    event = '{"hook_event_name": "Stop", "session_id": "s", "cwd": "/src/api"}'
    times, worked = [], os.times()
    for _ in range(RUNS):
        began = time.perf_counter()
        assert mesh.bob.run("hook", "claude-code", stdin=event).exit_code == 0
        times.append((time.perf_counter() - began) * 1000)

    done = os.times()
    processor_ms = (done.children_user + done.children_system - worked.children_user - worked.children_system) * 1000
    record_property("summary", f"hook_ms {min(times):.0f} at best, {processor_ms / RUNS:.0f} of processor time")


def test_an_idle_session_is_woken_also_after_its_daemon_was_killed(
    mesh: Mesh, models: SimulatedModels, bob: Claude
) -> None:
    """It watches its bell still; its server finds the new daemon by itself."""
    bob.open()
    wait_for_presence(mesh, "bob")
    time.sleep(2)  # the program says nowhere when it watches the bell

    mesh.bob.kill_daemon()
    mesh.bob.ok("daemon", "start")
    wait_for_presence(mesh, "bob")
    message_id = mesh.send("are you still there?", to="bob.desktop/bob")
    (request,) = wait_for_requests(models, "bob", 1)

    assert occurrences(request, "are you still there?") == 1
    mesh.wait_for_stages(message_id, ["offered", "read"])


@pytest.mark.parametrize("names_it", [True, False], ids=["answers", "writes anew"])
def test_two_agents_that_answer_whatever_comes_are_stopped(
    mesh: Mesh, models: SimulatedModels, bob: Claude, names_it: bool
) -> None:
    """After eight hops a message waits for a person, who sees why; also when none says what it answers."""
    alice = Claude.on(mesh.alice, models, "alice")
    alice.set_up()
    models.scripts.update(
        alice=_answers_everything("bob.desktop", names_it), bob=_answers_everything("alice.laptop", names_it)
    )
    try:
        bob.open()
        wait_for_presence(mesh, "bob")
        time.sleep(2)  # the program says nowhere when it watches the bell
        alice.open().type("begin")
        wait_until(lambda: held(mesh), "something is held", 200)
    finally:
        alice.close()

    (first, *_) = held(mesh)
    asked = len(models.of("alice")) + len(models.of("bob"))
    assert "hops" in str(first)
    assert asked <= 30, "a turn for each message, and no more of them than the guard allows"


def held(mesh: Mesh) -> list[Any]:
    """What waits for a person on either machine."""
    return [one for machine in (mesh.alice, mesh.bob) for one in machine.ok("hold", "list")["held"]]


def _answers_everything(to: str, names_it: bool) -> Script:
    answered: set[str] = set()

    def script(body: Body, number: int) -> list[Block]:
        text = "\n".join(strings(body["messages"]))
        seen = re.findall(r"(?<!\| )--- message (\S+)", text)
        fresh = [one for one in seen if one not in answered]
        if number and not fresh:
            return [Say("done")]
        answered.update(seen)
        reply = {"reply_to": fresh[-1]} if fresh and names_it else {}
        return [Call(SEND, {"to": to, "text": f"and what about {number}?", **reply})]

    return script
