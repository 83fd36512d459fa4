"""What a person at a terminal sees, and a pipe does not: progress, colour, a hidden passphrase."""

import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import TIMEOUT_S, Machine, machine


@pytest.fixture
def alice(tmp_path: Path) -> Iterator[Machine]:
    """A machine with the mesh `local`."""
    with machine(tmp_path, "alice") as one:
        one.ok("up")
        yield one


def at_terminal(one: Machine, *args: str, typed: str = "", **extra: str) -> str:
    """Run a command on a pseudo-terminal, answer each prompt with a line of `typed`; everything that it drew."""
    controller, terminal = pty.openpty()
    environment = one.environment | {"TERM": "xterm-256color"} | extra
    process = subprocess.Popen(
        one.command(*args), env=environment, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    )
    os.close(terminal)
    drawn, lines = b"", typed.splitlines(keepends=True)
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        if lines and drawn.count(b": ") > typed.count("\n") - len(lines):
            os.write(controller, lines.pop(0).encode())
        if select.select([controller], [], [], 0.5)[0]:
            try:
                chunk = os.read(controller, 65_536)
            except OSError:
                break  # the last process closed the terminal
            if not chunk:
                break
            drawn += chunk
    process.wait(timeout=TIMEOUT_S)
    os.close(controller)
    return drawn.decode()


def test_a_terminal_is_told_what_takes_time(alice: Machine) -> None:
    """Starting the daemon can take a second, and says so."""
    alice.ok("daemon", "stop")

    assert "starting the daemon" in at_terminal(alice, "mesh", "list")


def test_a_pipe_is_told_nothing_but_the_answer(alice: Machine) -> None:
    """Unless it asks with --verbose."""
    alice.ok("daemon", "stop")
    quiet = alice.run("mesh", "list")
    alice.ok("daemon", "stop")
    verbose = alice.run("mesh", "list", "--verbose")

    assert quiet.stderr == ""
    assert "starting the daemon" in verbose.stderr
    assert "\x1b" not in quiet.stdout


def test_no_color_is_honoured(alice: Machine) -> None:
    """Decoration on a terminal, and none for whoever asks for none."""
    assert "\x1b[" in at_terminal(alice, "doctor")
    assert "\x1b[" not in at_terminal(alice, "doctor", NO_COLOR="1")
    assert "\x1b[" not in at_terminal(alice, "mesh", "list", NO_COLOR="1")


def test_a_passphrase_is_not_echoed(alice: Machine) -> None:
    """Asked for twice when it is new, and shown never."""
    file = alice.home / "keys.backup"

    drawn = at_terminal(alice, "backup", str(file), typed="hidden-words\nhidden-words\n")

    assert file.exists()
    assert "hidden-words" not in drawn


def test_a_link_can_be_drawn_as_a_code(alice: Machine) -> None:
    """Blocks on the terminal, under the link itself."""
    drawn = at_terminal(alice, "invite", "--qr")

    assert "claudemesh join ic+unix://" in drawn
    assert "█" in drawn
