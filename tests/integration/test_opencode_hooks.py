"""What opencode's plugin asks of a real daemon over the real socket, and what the sender may believe.

The plugin itself runs in the real program in tests/hosts; here its side of the connection is spoken by a test.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.ipc import LENGTH, Client, decode_frame
from claudemesh.hosts.calling import NOT_WRITTEN, WRITTEN
from tests.agents import socket_of
from tests.processes import Machine, introduce, machine, start_broker, wait_until

CWD = "/srv/payments-api"
FIRST, SECOND = os.getpid(), os.getppid()
"""Processes that run, for the daemon looks whether they do."""


@dataclass
class Plugin:
    """One session of opencode, as the plugin inside reports it."""

    machine: Machine
    key: str = "ses_1"
    process: int = 0
    is_interactive: bool = True

    def tell(self, event: str, sign: bytes = WRITTEN, **fields: Any) -> str:
        """Report an event, and sign what became of the answer; returns the text to show."""
        given = {"hook_event_name": event, "session_id": self.key, "cwd": CWD, "is_interactive": self.is_interactive}
        args = {"host": "opencode", "event": given | fields, "environment": {}, "process": self.process}
        with Client(socket_of(self.machine), 30) as client:
            connection = client.attach("hook", args)
            with connection.makefile("rb") as reader:
                length = LENGTH.unpack(reader.read(LENGTH.size))[0]
                text = str(decode_frame(reader.read(length))["stdout"])
                connection.sendall(sign if text else b"")
        return text


@dataclass
class World:
    """Alice writes to Bob, where sessions of opencode run."""

    alice: Machine
    bob: Machine

    def send(self, text: str, *options: str, to: str = "bob.desktop") -> str:
        return str(self.alice.ok("send", to, text, "--wait", "delivered", *options)["id"])

    def stages(self, message_id: str) -> list[str]:
        steps = self.alice.ok("message", message_id)["steps"]
        return [step["stage"] for step in steps if step["stage"] not in ("queued", "accepted", "delivered")]

    def wait_for_stages(self, message_id: str, stages: list[str]) -> None:
        wait_until(lambda: self.stages(message_id) == stages, f"{stages}")

    def agents(self) -> dict[str, Any]:
        """Every open session of Bob's by its label."""
        with Client(socket_of(self.bob), 30) as client:
            return {one["label"]: one for one in client.call("agent.list", {})["agents"]}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Two machines in one mesh."""
    with ExitStack() as stack:
        broker = stack.enter_context(start_broker(tmp_path))
        alice = stack.enter_context(machine(tmp_path, "alice"))
        bob = stack.enter_context(machine(tmp_path, "bob"))
        introduce(broker, alice, bob)
        yield World(alice, bob)


def record(*, present: tuple[str, ...] = (), answered: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """What the plugin found of our messages in the conversation."""
    return {"present": list(present), "answered": list(answered)}


def test_what_was_written_is_read_once_the_conversation_shows_an_answer(world: World) -> None:
    """And not by the mere next event: a turn that failed ends, too."""
    plugin = Plugin(world.bob)
    message_id = world.send("the build is green")

    shown = plugin.tell("SessionStart")
    again = [plugin.tell("UserPromptSubmit"), plugin.tell("Stop"), plugin.tell("UserPromptSubmit")]
    world.wait_for_stages(message_id, ["offered"])
    plugin.tell("Stop", record=record(present=(message_id,)))
    assert world.stages(message_id) == ["offered"]
    plugin.tell("Stop", record=record(answered=(message_id,)))

    assert "| the build is green" in shown
    assert again == ["", "", ""]
    world.wait_for_stages(message_id, ["offered", "read"])


def test_what_the_plugin_could_not_write_waits_for_the_next_moment(world: World) -> None:
    """Nobody is told that it was offered."""
    plugin = Plugin(world.bob)
    plugin.tell("SessionStart")
    message_id = world.send("the build is green")

    lost = plugin.tell("Wake", NOT_WRITTEN)
    wait_until(lambda: world.agents()["payments-api"]["waiting"]["next"] == 1, "it waits again")
    stages = world.stages(message_id)
    shown = plugin.tell("Stop")

    assert "| the build is green" in lost
    assert stages == []
    assert "| the build is green" in shown


def test_what_is_not_in_the_conversation_is_shown_again(world: World) -> None:
    """opencode was killed before it had stored what it took; there is no false `read`."""
    plugin = Plugin(world.bob)
    plugin.tell("SessionStart")
    message_id = world.send("the build is red")
    plugin.tell("Wake")
    world.wait_for_stages(message_id, ["offered"])

    resumed = plugin.tell("SessionStart", record=record())

    assert "| the build is red" in resumed
    assert world.stages(message_id) == ["offered"]


def test_a_prompt_of_ours_says_who_did_not_write_it(world: World) -> None:
    """In the session it looks like its user's own; what is added beside a prompt does not."""
    plugin = Plugin(world.bob)
    plugin.tell("SessionStart")
    texts = []
    for event in ("Wake", "Stop", "UserPromptSubmit"):
        world.send(f"for {event}")
        texts.append(plugin.tell(event))

    assert ["Your user did not write this" in text for text in texts] == [True, True, False]
    assert all("--- message" in text for text in texts)


def test_only_an_urgent_message_comes_with_a_tool(world: World) -> None:
    """The rest waits for the end of the turn."""
    world.bob.ok("grant", "alice", "now")
    plugin = Plugin(world.bob)
    plugin.tell("SessionStart")
    plugin.tell("UserPromptSubmit")
    world.send("when you can")
    world.send("stop", "--priority", "now")

    tool, turn_end = plugin.tell("PostToolUse"), plugin.tell("Stop")

    assert "| stop" in tool
    assert "| when you can" not in tool
    assert "| when you can" in turn_end


def test_a_headless_run_is_never_woken_and_says_how_it_is_reached(world: World) -> None:
    """It ends with its turn; until then its tools are the way."""
    plugin = Plugin(world.bob, is_interactive=False)
    plugin.tell("SessionStart")
    world.send("are you there?")

    assert plugin.tell("Wake") == ""
    assert world.agents()["payments-api"]["reach"] == "tool"
    plugin.tell("SessionEnd")
    assert world.agents() == {}


def test_a_session_is_found_again_by_a_daemon_that_began_anew(world: World) -> None:
    """The plugin reports it again; what it was shown is not shown again."""
    plugin = Plugin(world.bob)
    plugin.tell("SessionStart")
    message_id = world.send("the build is red")
    plugin.tell("Wake")
    world.bob.kill_daemon()
    world.bob.ok("daemon", "start")

    attached = plugin.tell("Attach")
    known = world.agents()["payments-api"]
    later = plugin.tell("Stop", record=record(answered=(message_id,)))

    assert (attached, later) == ("", "")
    assert (known["key"], known["reach"]) == ("ses_1", "wakeable")
    world.wait_for_stages(message_id, ["offered", "read"])


@pytest.mark.parametrize("found", [7, [], {"answered": 7}, {"answered": [7, None]}, {"present": {"a": 1}}])
def test_a_record_of_another_shape_confirms_nothing(world: World, found: Any) -> None:
    """It comes from outside; what it does not say is not made up, and the session goes on."""
    plugin = Plugin(world.bob)
    plugin.tell("SessionStart")
    message_id = world.send("the build is red")
    plugin.tell("Wake")
    world.wait_for_stages(message_id, ["offered"])

    plugin.tell("Stop", record=found)

    assert world.stages(message_id) == ["offered"]


class Server:
    """Our MCP server as one process of opencode starts it, served by the daemon."""

    def __init__(self, bob: Machine, key: str, process: int) -> None:
        self._client = Client(socket_of(bob), 30)
        args = {"host": "opencode", "key": key, "cwd": CWD, "process": process}
        self._lines = self._client.attach("mcp.attach", args).makefile("rwb")
        handshake = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "o", "version": "1"}}
        self._ask(0, "initialize", handshake)
        self._write({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def label(self) -> str:
        """Which session it speaks for."""
        answer = self._ask(1, "tools/call", {"name": "mesh_self", "arguments": {}})
        return str(answer["result"]["content"][0]["text"]).partition(" in mesh")[0].rpartition("/")[2]

    def close(self) -> None:
        self._lines.close()
        self._client.close()

    def _ask(self, number: int, method: str, params: Any) -> Any:
        self._write({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        while (answer := json.loads(self._lines.readline())).get("id") != number:
            pass
        return answer

    def _write(self, message: Any) -> None:
        self._lines.write(json.dumps(message).encode() + b"\n")
        self._lines.flush()


def test_two_processes_in_one_directory_have_each_its_own_server(world: World) -> None:
    """A session is joined with the server of its own process, in whatever order they come."""
    servers = [Server(world.bob, key, process) for key, process in (("a" * 16, FIRST), ("b" * 16, SECOND))]
    try:
        second, first = Plugin(world.bob, "ses_b", SECOND), Plugin(world.bob, "ses_a", FIRST)
        second.tell("SessionStart")
        first.tell("SessionStart")
        labels = {one["key"]: label for label, one in world.agents().items()}

        assert sorted(labels) == ["ses_a", "ses_b"]
        assert [server.label() for server in servers] == [labels["ses_a"], labels["ses_b"]]
    finally:
        for server in servers:
            server.close()


def test_a_server_speaks_for_the_session_that_calls_it(world: World) -> None:
    """One process serves several, and has one server for them."""
    first, second = Plugin(world.bob, "ses_a", FIRST), Plugin(world.bob, "ses_b", FIRST)
    first.tell("SessionStart")
    second.tell("SessionStart")
    server = Server(world.bob, "a" * 16, FIRST)
    labels = {one["key"]: label for label, one in world.agents().items()}
    try:
        found = []
        for plugin in (first, second, first):
            plugin.tell("PreToolUse")
            found.append(server.label())
        first.tell("SessionEnd")
        left = server.label()
    finally:
        server.close()

    assert found == [labels["ses_a"], labels["ses_b"], labels["ses_a"]]
    assert left == labels["ses_b"]
