"""N05: config.json under wrong modes, links, half writes and several writers."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from claudemesh.errors import LocalError
from claudemesh.peer.config import read_config
from claudemesh.peer.keystore import Keystore

WRITE_FOREVER = """
import itertools, sys
from pathlib import Path
from claudemesh.peer.keystore import Keystore
with Keystore.open(Path(sys.argv[1])) as keystore:
    print("ready", flush=True)
    for number in itertools.count():
        keystore.set_labels(f"name-{number}" * 3, "x" * (number % 40))
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A configuration with an identity in it."""
    directory = tmp_path / "config"
    with Keystore.open(directory) as keystore:
        keystore.set_labels("alice", "laptop")
    return directory


def refusal(directory: Path) -> str:
    """The code with which the directory is refused; "" when it is opened."""
    try:
        Keystore.open(directory).close()
    except LocalError as error:
        return error.code
    return ""


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o666, 0o601])
def test_n05_a_config_that_others_can_touch_is_refused(directory: Path, mode: int) -> None:
    """N05: expected `config_mode`, and the file is as it was."""
    path = directory / "config.json"
    before = path.read_bytes()
    path.chmod(mode)

    assert refusal(directory) == "config_mode"
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (before, mode)


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o777])
def test_n05_a_directory_that_others_can_enter_is_refused(directory: Path, mode: int) -> None:
    """N05: expected `config_mode`."""
    directory.chmod(mode)

    assert refusal(directory) == "config_mode"


def test_n05_what_is_made_anew_is_ours_alone(directory: Path) -> None:
    """N05: 0700 and 0600, whatever the umask."""
    old = os.umask(0)
    try:
        with Keystore.open(directory.parent / "second") as keystore:
            keystore.set_labels("bob", "phone")
    finally:
        os.umask(old)

    modes = {path.name: path.stat().st_mode & 0o777 for path in (directory.parent / "second").iterdir()}
    assert (directory.parent / "second").stat().st_mode & 0o777 == 0o700
    assert set(modes.values()) == {0o600}


def test_n05_a_link_in_place_of_the_config_is_refused(directory: Path, tmp_path: Path) -> None:
    """N05: neither a link to a file, to nowhere, nor to the directory is followed; expected `config_mode`."""
    path, elsewhere = directory / "config.json", tmp_path / "elsewhere"
    path.rename(elsewhere)

    path.symlink_to(elsewhere)
    to_a_file = refusal(directory)
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    to_nowhere = refusal(directory)
    path.unlink()
    elsewhere.rename(path)
    (tmp_path / "linked").symlink_to(directory)
    to_the_directory = refusal(tmp_path / "linked")

    assert (to_a_file, to_nowhere, to_the_directory) == ("config_mode", "config_mode", "config_mode")
    assert not (tmp_path / "nowhere").exists()


def test_n05_a_save_replaces_a_link_and_does_not_follow_it(directory: Path, tmp_path: Path) -> None:
    """N05: a link that appears while the process runs does not make it write elsewhere."""
    target = tmp_path / "target"
    target.write_text("untouched")
    with Keystore.open(directory) as keystore:
        (directory / "config.json").unlink()
        (directory / "config.json").symlink_to(target)

        keystore.set_labels("alice", "phone")

    assert target.read_text() == "untouched"
    assert not (directory / "config.json").is_symlink()


@pytest.mark.parametrize("length", [0, 1, 20, -1, -2])
def test_n05_a_half_written_config_is_refused_and_kept(directory: Path, length: int) -> None:
    """N05: expected `config_damaged`; nothing is repaired or overwritten without a person."""
    path = directory / "config.json"
    half = path.read_bytes()[:length].rstrip() if length >= 0 else path.read_bytes().rstrip()[:length]
    path.write_bytes(half)

    assert refusal(directory) == "config_damaged"
    assert path.read_bytes() == half


def test_n05_two_processes_do_not_hold_one_configuration(directory: Path) -> None:
    """N05: expected `config_locked`; and a lock does not outlive `kill -9`."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_FOREVER, str(directory)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"

        while_it_runs = refusal(directory)
        other.send_signal(signal.SIGKILL)
        other.wait()
        after_it_was_killed = refusal(directory)

    assert (while_it_runs, after_it_was_killed) == ("config_locked", "")


def test_n05_a_kill_in_the_middle_of_a_write_leaves_the_old_or_the_new(directory: Path) -> None:
    """N05: at any moment the file is whole; what a killed writer left lying is swept away."""
    for delay_s in (0.0, 0.003, 0.006, 0.01, 0.013):
        with subprocess.Popen(
            [sys.executable, "-c", WRITE_FOREVER, str(directory)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            try:
                writer.wait(delay_s)
            except subprocess.TimeoutExpired:
                writer.send_signal(signal.SIGKILL)
            writer.wait()

        config = read_config((directory / "config.json").read_bytes())
        assert config.name == "alice" or config.name.startswith("name-")

    Keystore.open(directory).close()
    assert {path.name for path in directory.iterdir()} <= {"config.json", "daemon.lock"}
