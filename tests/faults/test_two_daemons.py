"""Two daemons on one configuration directory: one has it, the other says so and touches nothing."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Machine, machine

ROUNDS = 3


@pytest.fixture
def alice(tmp_path: Path) -> Iterator[Machine]:
    """A machine with an empty configuration directory."""
    with machine(tmp_path, "alice") as one:
        one.config_dir.mkdir(mode=0o700)
        yield one


def spawn(one: Machine) -> subprocess.Popen[str]:
    """A daemon as a service manager starts it; it announces on its standard output how it went."""
    return subprocess.Popen(
        Machine.command("daemon", "run", "--announce"),
        env=one.environment,
        cwd=one.home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def announced(process: subprocess.Popen[str]) -> dict[str, dict[str, object]]:
    """The line in which it says whether it serves."""
    assert process.stdout is not None
    line: dict[str, dict[str, object]] = json.loads(process.stdout.readline())
    return line


@pytest.mark.parametrize("count", [2, 4])
def test_of_daemons_that_start_together_one_serves_and_the_others_say_why(alice: Machine, count: int) -> None:
    """However the race ends: one winner that answers, and `config_locked` with exit code 3 for everybody else."""
    for _ in range(ROUNDS):
        processes = [spawn(alice) for _ in range(count)]

        answers = [announced(process) for process in processes]

        winners = [process for process, answer in zip(processes, answers, strict=True) if "ready" in answer]
        losers = [process for process in processes if process not in winners]
        codes = [answer["error"]["code"] for answer in answers if "error" in answer]
        assert (len(winners), codes) == (1, ["config_locked"] * (count - 1))
        assert [loser.wait(timeout=30) for loser in losers] == [3] * (count - 1)
        assert all("Traceback" not in loser.communicate()[1] for loser in losers)
        assert alice.ok("daemon", "status")["pid"] == winners[0].pid
        winners[0].kill()
        winners[0].communicate()


def test_the_loser_leaves_the_winners_socket_and_record_alone(alice: Machine) -> None:
    """A second start must not unlink what the first one listens on."""
    winner = spawn(alice)
    assert "ready" in announced(winner)
    before = (alice.config_dir / "daemon.json").read_text()

    loser = spawn(alice)
    assert announced(loser)["error"]["code"] == "config_locked"
    loser.communicate()

    assert (alice.config_dir / "daemon.json").read_text() == before
    assert alice.ok("daemon", "status")["pid"] == winner.pid
    winner.terminate()
    assert winner.communicate()[0] == ""
    assert winner.returncode == 0


def test_a_killed_winner_leaves_the_directory_free(alice: Machine) -> None:
    """The lock ends with the process, so that nobody has to remove a file by hand."""
    first = spawn(alice)
    assert "ready" in announced(first)
    first.kill()
    first.communicate()

    second = spawn(alice)

    assert "ready" in announced(second)
    second.kill()
    second.communicate()
