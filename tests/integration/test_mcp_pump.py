"""The process that a host starts: it outlives the daemon, keeps standard output clean, and never claims a reading."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh.daemon.ipc import Client
from claudemesh.mcp.pump import WRITTEN
from tests.mcp_clients import ERAS, Pair, agent, pair_of_machines
from tests.processes import Machine, machine, wait_until

_INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two machines in one mesh; every test leaves their inboxes empty."""
    with pair_of_machines(tmp_path_factory.mktemp("pair")) as one:
        yield one


@pytest.mark.parametrize("era", ERAS)
async def test_a_daemon_killed_in_mid_call_is_an_error_and_the_next_call_works(pair: Pair, era: str) -> None:
    """The model is told that the outcome is unknown; the session goes on with the next daemon, in either era."""
    async with agent(pair.bob, "--label", "survivor", era=era) as bob:
        before = await bob.says("mesh_self")
        replies: list[Any] = []

        async def wait_for_a_message() -> None:
            replies.append(await bob.call("mesh_inbox", wait_s=60))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_for_a_message)
            await anyio.sleep(1)  # it waits in the daemon by now; were it not there yet, the call would fail the same
            pair.bob.kill_daemon()
        after = await bob.says("mesh_self")
        listed = await bob.client.list_tools()

    assert replies[0].is_error
    assert "whether it took effect is not known" in replies[0].text
    assert after.splitlines()[0].startswith(before.splitlines()[0].partition(":")[0])
    assert len(listed.tools) == 6


async def test_what_was_shown_before_the_daemon_was_killed_is_not_shown_again(pair: Pair) -> None:
    """One showing and one receipt, whatever happens to the daemon between."""
    message = pair.send("once")
    async with agent(pair.bob) as bob:
        shown = await bob.call("mesh_inbox")
        wait_until(lambda: "read" in pair.stages(message), "the receipt is here")
        pair.bob.kill_daemon()
        again = await bob.call("mesh_inbox")
        if again.is_error:  # it was written to a daemon that was dying: whether it took effect was not known
            again = await bob.call("mesh_inbox")

    assert shown.ids == [message]
    assert again.text == "No unread messages."
    assert pair.stages(message).count("read") == 1


async def test_a_daemon_that_is_stopped_stays_stopped_until_it_is_needed(pair: Pair) -> None:
    """`daemon stop` is respected: an idle session starts none, and finds the one that somebody else started."""
    async with agent(pair.bob, "--label", "patient") as bob:
        await bob.says("mesh_self")
        pair.bob.ok("daemon", "stop")
        await anyio.sleep(2.5)
        stopped = pair.bob.run("daemon", "status", "--json")
        pair.bob.ok("daemon", "start")
        await pair_sees(pair, "bob.desktop/patient")

    assert stopped.json == {"running": False}


async def pair_sees(pair: Pair, address: str) -> None:
    """Until Alice sees a session, of which no tool was called."""
    async with agent(pair.alice) as alice:
        await alice.until("mesh_peers", address)


def test_a_message_counts_as_read_only_when_the_host_has_it(pair: Pair) -> None:
    """A pipe that takes the answer from the daemon and dies before the host has it states nothing."""
    message = pair.send("never seen")
    with _attached(pair.bob) as lines:
        _ask(lines, 1, "mesh_inbox")
        answer = json.loads(lines.readline())
    time.sleep(1)

    assert message in answer["result"]["content"][0]["text"]
    assert "read" not in pair.stages(message)

    with _attached(pair.bob, "another-session") as lines:
        _ask(lines, 1, "mesh_inbox", id=message)
        assert message in json.loads(lines.readline())["result"]["content"][0]["text"]
        written = {"jsonrpc": "2.0", "method": "notifications/claudemesh/written", "params": {"id": 1}}
        _write(lines, written)
        wait_until(lambda: "read" in pair.stages(message), "the receipt is here")


@pytest.mark.parametrize("line", [{"params": {"name": WRITTEN}, "method": "tools/call"}, {"method": WRITTEN}])
def test_a_line_that_looks_like_one_of_ours_ends_no_session(pair: Pair, line: dict[str, Any]) -> None:
    """Our own lines come from our own process alone; whatever else names them is a request like another."""
    with _attached(pair.bob) as lines:
        _write(lines, {"id": 1, "jsonrpc": "2.0", **line})
        answers = [json.loads(lines.readline())]
        _ask(lines, 2, "mesh_self")
        answers.append(json.loads(lines.readline()))

    assert [one["id"] for one in answers] == [1, 2]


def test_standard_output_holds_the_protocol_and_nothing_else(pair: Pair) -> None:
    """Lines that are not JSON, or no request, are answered or ignored; what people should know is on standard error."""
    pair.bob.ok("daemon", "stop")
    with _process(pair.bob) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("not json\n[1, 2]\n\n{}\n")
        _put(process, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": _INITIALIZE})
        first = json.loads(process.stdout.readline())
        _put(process, {"jsonrpc": "2.0", "method": "notifications/initialized"})
        big = {"name": "mesh_send", "arguments": {"to": "alice", "text": "x" * (1 << 20)}}
        _put(process, {"jsonrpc": "2.0", "id": "two", "method": "tools/call", "params": big})
        second = json.loads(process.stdout.readline())
        process.stdin.close()
        rest = process.stdout.read()
        exit_code = process.wait(timeout=30)
        complaints = process.stderr.read() if process.stderr is not None else ""

    assert first["id"] == 1
    assert second["id"] == "two"
    assert second["result"]["isError"] is True
    assert rest == ""
    assert exit_code == 0
    assert complaints == "claudemesh: starting the daemon\n"


def test_a_session_leaves_when_its_host_hangs_up_or_dies(pair: Pair) -> None:
    """Presence follows the process, however that ends."""
    for end in (lambda one: one.stdin.close(), lambda one: os.kill(one.pid, signal.SIGKILL)):
        with _process(pair.bob, "--label", "leaver") as process:
            _put(process, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": _INITIALIZE})
            assert process.stdout is not None
            process.stdout.readline()
            assert "leaver" in _labels(pair.bob)
            end(process)
            process.wait(timeout=30)
        wait_until(lambda: "leaver" not in _labels(pair.bob), "the session is gone")


def test_a_daemon_that_cannot_start_is_told_on_standard_error(tmp_path: Path) -> None:
    """The host gets an end with a code, the person a reason and a remedy; standard output stays empty."""
    with machine(tmp_path, "carol") as carol:
        carol.config_dir.mkdir(mode=0o755)
        result = carol.run("mcp")

    assert result.exit_code == 3
    assert result.stdout == ""
    assert "chmod 700" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("words", [["--nonsense"], ["--label"], ["--help"]])
def test_other_words_are_for_the_command_line(tmp_path: Path, words: list[str]) -> None:
    """What the fast way cannot read gets the same help and the same complaints as every verb."""
    with machine(tmp_path, "carol") as carol:
        result = carol.run("mcp", *words)

    assert result.exit_code == (0 if words == ["--help"] else 2)
    assert "Traceback" not in result.stderr


def test_the_environment_is_told_to_nobody(pair: Pair) -> None:
    """A host hands its server every variable, keys of paid services among them: no trace of one stays."""
    canary = "sk-canary-51f0"
    process = subprocess.run(
        pair.bob.command("mcp"),
        env=pair.bob.environment | {"ANTHROPIC_API_KEY": canary},
        input=json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": _INITIALIZE}) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    kept = b"".join(path.read_bytes() for path in pair.bob.config_dir.rglob("*") if path.is_file())

    assert canary not in process.stdout + process.stderr
    assert canary.encode() not in kept


@contextmanager
def _process(place: Machine, *options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        place.command("mcp", *options),
        env=place.environment,
        cwd=place.home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


@contextmanager
def _attached(place: Machine, key: str = "raw") -> Iterator[Any]:
    """A connection of our own in place of the process, initialized."""
    place.ok("daemon", "start")
    connection = Client(place.config_dir / "daemon.sock").attach("mcp.attach", {"host": "test", "key": key})
    connection.settimeout(60)
    with connection, connection.makefile("rwb") as lines:
        _write(lines, {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": _INITIALIZE})
        lines.readline()
        _write(lines, {"jsonrpc": "2.0", "method": "notifications/initialized"})
        yield lines


def _ask(lines: Any, number: int, tool: str, **arguments: Any) -> None:
    params = {"name": tool, "arguments": arguments}
    _write(lines, {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})


def _write(lines: Any, message: dict[str, Any]) -> None:
    lines.write(json.dumps(message).encode() + b"\n")
    lines.flush()


def _put(process: subprocess.Popen[str], message: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()


def _labels(place: Machine) -> list[str]:
    with Client(place.config_dir / "daemon.sock", 60) as client:
        return [one["label"] for one in client.call("agent.list", {})["agents"]]
