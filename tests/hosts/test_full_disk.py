"""A real Claude Code whose claudemesh has no room left: the user's turn goes on, and nothing is claimed or lost."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from claudemesh.daemon.ipc import AnsweredError, Client
from tests.faults.small_disk import SmallDisk, small_disk
from tests.hosts.claude import Claude
from tests.hosts.conftest import Mesh, two_users
from tests.hosts.simulated_anthropic import last_tool_result, simulated_anthropic
from tests.hosts.simulated_models import Block, Body, Call, Say, SimulatedModels
from tests.processes import Machine, machine, start_broker, wait_until

INBOX = "mcp__claudemesh__mesh_inbox"
LARGE = "x" * 200_000
MANY = 200
"""More large messages than the disk holds."""
THINKS_AT_MOST_S = 120


class Place(NamedTuple):
    """Bob's configuration directory is on a small disk; everything of Claude Code's is not."""

    disk: SmallDisk
    mesh: Mesh
    models: SimulatedModels
    bob: Claude


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(tmp_path))
        broker = stack.enter_context(start_broker(tmp_path))
        alice = stack.enter_context(machine(tmp_path, "alice"))
        bob = Machine((stack.enter_context(machine(tmp_path, "bob"))).home, disk.path / "config")
        stack.callback(bob.stop)
        mesh = two_users(broker, alice, bob)
        models = simulated_anthropic(**{"*": lambda _body, number: [Say(f"reply {number}")]})
        stack.callback(models.close)
        claude = Claude.on(bob, models, "bob")
        claude.set_up()
        stack.callback(claude.close)
        yield Place(disk, mesh, models, claude)
        assert not models.errors


def fill(place: Place) -> None:
    """Fill the disk, and the room that the daemon's files still have in themselves."""
    place.disk.fill()
    with Client(place.bob.machine.config_dir / "daemon.sock", 60) as client:
        for text in (LARGE, "x"):
            with pytest.raises(AnsweredError, match="disk"):  # noqa: PT012
                for _ in range(MANY):
                    client.call("send", {"to": "alice.laptop", "text": text})


def occurrences(place: Place) -> list[int]:
    """How often the message stands in each request of Bob's model."""
    return [request.text.count("| the build is red") for request in place.models.of("bob")]


def test_a_turn_goes_on_while_the_disk_is_full(place: Place) -> None:
    """Prompt, hooks and tool: nothing is shown or called read; with room again the message comes once."""
    fills, answers = threading.Event(), list[str]()

    def bob_says(body: Body, number: int) -> list[Block]:
        if number == 1:  # in mid-turn, with a message waiting, the disk fills
            assert fills.wait(THINKS_AT_MOST_S)
            return [Call("Bash", {"command": "true", "description": "nothing"})]
        if number == 3:
            return [Call(INBOX, {})]
        answers.append(last_tool_result(body))
        return [Say(f"reply {number}")]

    place.models.scripts["bob"] = bob_says
    terminal = place.bob.open()
    terminal.type("hello")
    terminal.wait_for("reply 0")
    terminal.type("work on it")
    terminal.wait_for("work on it")
    _wait_for_request(place, 2)
    message_id = place.mesh.send("the build is red", to="bob.desktop/bob")
    fill(place)
    fills.set()
    terminal.wait_for("reply 2")
    terminal.type("what came in?")
    terminal.wait_for("reply 4", 60)
    full, stages = occurrences(place), place.mesh.stages(message_id)

    place.disk.free()
    terminal.type("and now?")
    terminal.wait_for("reply 5", 60)

    assert full == [0] * 5
    assert stages == []
    assert "the disk is full" in answers[2]
    place.mesh.wait_for_stages(message_id, ["offered", "read"])
    assert occurrences(place)[5] == 1


def test_a_session_begins_while_the_disk_is_full(place: Place) -> None:
    """Its hooks say nothing and its user waits for nothing; the next session with room is shown the message."""
    message_id = place.mesh.send("the build is red")
    fill(place)

    done = place.bob.ask("hello")
    stages = place.mesh.stages(message_id)
    place.disk.free()
    place.bob.ask("and now?")

    assert (done.exit_code, done.stdout) == (0, "reply 0")
    assert stages == []
    assert occurrences(place) == [0, 1]
    place.mesh.wait_for_stages(message_id, ["offered", "read"])


def _wait_for_request(place: Place, count: int) -> None:
    wait_until(lambda: len(place.models.of("bob")) >= count, f"{count} requests")
