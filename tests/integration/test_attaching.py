"""Connections that another package takes over, and adapters that work inside the daemon."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.ipc import AnsweredError, Client
from tests.agents import Host
from tests.attached import GO_ON
from tests.processes import Machine, introduce, machine, start_broker, wait_until

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def daemon_with_guests(one: Machine) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon that the test composes as `claudemesh daemon run` composes ours."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.attached"], env=one.environment, cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: one.run("daemon", "status").exit_code == 0, "the daemon serves")
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
def carol(tmp_path: Path) -> Iterator[Machine]:
    """A machine whose daemon has guests."""
    with machine(tmp_path, "carol") as one, daemon_with_guests(one):
        yield one


def attach(one: Machine, op: str, **args: Any) -> Any:
    return Client(one.config_dir / "daemon.sock", 30).attach(op, args)


def test_a_connection_is_handed_over_with_what_was_sent_early(carol: Machine) -> None:
    """Bytes that follow the request are not lost, whether or not the answer was read before."""
    with attach(carol, "test.echo", name="carol") as connection:
        connection.sendall(b"one\ntwo\n")
        stream = connection.makefile("rb")
        said = [stream.readline() for _ in range(3)]

    assert said[0].startswith(b"carol at ")
    assert said[1:] == [b"ONE\n", b"TWO\n"]


def test_nothing_is_taken_over_by_a_name_that_nobody_brought(carol: Machine) -> None:
    """An unknown name is an unknown operation, and the connection goes on."""
    with pytest.raises(AnsweredError) as error:
        attach(carol, "mcp.nobody")

    assert error.value.error["code"] == "usage"


def test_a_defect_ends_its_connection_and_no_other(carol: Machine) -> None:
    """And leaves no text in the log."""
    with attach(carol, "test.defect") as connection:
        assert connection.recv(1) == b""
    with attach(carol, "test.echo", name="still here") as connection:
        assert connection.makefile("rb").readline().startswith(b"still here")

    log = (carol.config_dir / "daemon.log").read_text()
    assert '"kind": "RuntimeError"' in log
    assert "canary-secret" not in log


def test_the_daemon_answers_while_a_guest_is_imported(carol: Machine) -> None:
    """The MCP server's library takes seconds on a busy machine, and a hook waits four at most."""
    with attach(carol, "test.late") as connection:
        meanwhile = carol.run("peers", "--json", timeout_s=20)
        (carol.config_dir / GO_ON).touch()

        assert meanwhile.json["error"]["code"] == "no_mesh"
        assert connection.makefile("rb").readline() == b"here\n"


def test_a_daemon_that_stops_does_not_wait_for_its_guests(tmp_path: Path) -> None:
    """A session of a host stays attached for days."""
    with machine(tmp_path, "carol") as one, daemon_with_guests(one) as process:
        with attach(one, "test.echo", name="carol") as connection:
            stream = connection.makefile("rb")
            stream.readline()
            assert one.run("daemon", "stop").exit_code == 0
            assert stream.readline() == b""
        assert process.wait(timeout=30) == 0


def test_an_adapter_puts_messages_before_the_sessions_of_its_host(tmp_path: Path) -> None:
    """Opened by whatever opens the session; the sender learns which way it took."""
    with (
        start_broker(tmp_path) as broker,
        machine(tmp_path, "alice") as alice,
        machine(tmp_path, "bob") as bob,
        daemon_with_guests(bob),
    ):
        introduce(broker, alice, bob)
        Host(bob, "pushed", host="test-host").open(reach="wakeable")
        Host(bob, "not pushed", host="other-host").open()
        sent = alice.ok("send", "bob.desktop", "wake up", "--wait", "read", "--timeout", "30s")
        steps = alice.ok("message", sent["id"])["steps"]

        assert sent["stage"] == "read"
        assert [step["code"] for step in steps if step["stage"] in ("offered", "read")] == ["test-host.push"] * 2
