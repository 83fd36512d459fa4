"""The daemon starts once, is found again, replaces what a dead one left, and says why when it cannot."""

import json
import os
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from claudemesh.daemon.ipc import LENGTH
from tests.processes import Machine, machine, wait_until


@pytest.fixture
def alice(tmp_path: Path) -> Iterator[Machine]:
    """A machine where nothing was ever run."""
    with machine(tmp_path, "alice") as one:
        yield one


def test_any_verb_starts_the_daemon(alice: Machine) -> None:
    """A person never has to know that there is one."""
    assert alice.run("daemon", "status").exit_code == 3

    status = alice.ok("daemon", "start")

    assert status["running"] is True
    assert alice.ok("daemon", "status")["pid"] == status["pid"]


def test_commands_at_the_same_moment_start_one_daemon(alice: Machine) -> None:
    """The lock holds: eight first commands, one process."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: alice.ok("daemon", "start"), range(8)))

    assert len({answer["pid"] for answer in answers}) == 1


def test_a_second_daemon_is_refused(alice: Machine) -> None:
    """Two daemons on one directory are impossible, also for a service manager."""
    alice.ok("daemon", "start")

    second = alice.run("daemon", "run")

    assert second.exit_code == 3
    assert "config_locked" in second.stderr
    assert "Traceback" not in second.stderr


def test_the_socket_of_a_killed_daemon_is_replaced(alice: Machine) -> None:
    """A stale socket is no obstacle: nobody listens, so the next command starts a daemon."""
    first = alice.ok("daemon", "start")["pid"]
    alice.kill_daemon()
    assert (alice.config_dir / "daemon.sock").exists()

    second = alice.ok("daemon", "start")["pid"]

    assert second != first


def test_stop_returns_when_the_directory_is_free(alice: Machine) -> None:
    """A start right after a stop finds neither a lock nor a socket in its way."""
    for _ in range(3):
        alice.ok("daemon", "start")
        assert alice.ok("daemon", "stop") == {"running": False}
        assert not (alice.config_dir / "daemon.sock").exists()
    assert alice.run("daemon", "stop").stdout == "the daemon does not run\n"


def test_everything_it_makes_is_private(alice: Machine) -> None:
    """Directory 0700, every file and socket 0600."""
    alice.ok("daemon", "start")

    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in alice.config_dir.iterdir()}
    assert stat.S_IMODE(alice.config_dir.stat().st_mode) == 0o700
    assert {name for name, mode in modes.items() if mode != 0o600} == set()
    assert "daemon.sock" in modes


def test_a_directory_that_others_can_read_is_refused_with_the_remedy(alice: Machine) -> None:
    """The daemon does not start, and the error holds the command that helps."""
    alice.config_dir.mkdir(mode=0o755)
    alice.config_dir.chmod(0o755)

    error = alice.fails("mesh", "list")

    assert error["code"] == "config_mode"
    assert f"chmod 700 {alice.config_dir}" in error["message"]
    assert error["exit_code"] == 3


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"meshes": 3}', b"\xff\xfe"])
def test_a_damaged_configuration_is_refused_in_words(alice: Machine, content: bytes) -> None:
    """Half-written bytes neither crash a process nor get replaced."""
    alice.config_dir.mkdir(mode=0o700)
    file = alice.config_dir / "config.json"
    file.write_bytes(content)
    file.chmod(0o600)

    error = alice.fails("mesh", "list")

    assert error["code"] == "config_damaged"
    assert file.read_bytes() == content


@pytest.mark.parametrize("damage", ["mode", "link"])
def test_a_configuration_file_that_is_not_ours_alone_is_refused(alice: Machine, damage: str) -> None:
    """Readable by others, or a link to elsewhere: refused before a key is read."""
    alice.ok("up")
    alice.ok("daemon", "stop")
    file = alice.config_dir / "config.json"
    if damage == "mode":
        file.chmod(0o640)
    else:
        file.rename(alice.home / "elsewhere.json")
        file.symlink_to(alice.home / "elsewhere.json")

    error = alice.fails("mesh", "list")

    assert (error["code"], error["exit_code"]) == ("config_mode", 3)


def test_a_deep_directory_gets_a_socket_that_fits(alice: Machine) -> None:
    """A socket address is short; the daemon is found all the same, in a private place."""
    deep = alice.config_dir / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True, mode=0o700)
    one = Machine(alice.home, deep)

    status = one.ok("daemon", "start", XDG_RUNTIME_DIR=str(deep))

    assert one.ok("daemon", "status")["pid"] == status["pid"]
    assert stat.S_IMODE(Path(status["socket"]).parent.stat().st_mode) == 0o700
    assert one.ok("daemon", "stop") == {"running": False}


def test_it_ends_on_sigterm(alice: Machine) -> None:
    """What a service manager sends, in the foreground mode that it uses."""
    process = alice.start("daemon", "run")
    wait_until(lambda: alice.run("daemon", "status").exit_code == 0, "the daemon answers")

    process.terminate()

    assert process.wait(timeout=30) == 0
    assert not (alice.config_dir / "daemon.sock").exists()


def test_the_log_is_json_lines_of_events(alice: Machine) -> None:
    """One object per line, with an event and no free text."""
    alice.ok("daemon", "start")
    alice.ok("daemon", "stop")

    lines = [json.loads(line) for line in (alice.config_dir / "daemon.log").read_text().splitlines()]
    assert [line["event"] for line in lines][:1] == ["started"]
    assert lines[-1]["event"] == "stopped"
    assert alice.ok("daemon", "logs", "--lines", "1")["lines"][0] == json.dumps(lines[-1])


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"[]", "usage"),
        (b"{", "usage"),
        (b'{"v":1}', "usage"),
        (b'{"v":1,"op":"nothing.such","version":"0.1.0"}', "usage"),
        (b'{"v":1,"op":"daemon.status","args":{"x":1}}', "usage"),
        (b'{"v":1,"op":7}', "usage"),
        (b'{"v":2,"op":"mesh.list","version":"0.1.0"}', "daemon_version"),
        (b'{"v":1,"op":"mesh.list","version":"0.0.9"}', "daemon_version"),
        (b"\xff", "usage"),
        (b"[" * 1_000_000, "usage"),
        (b'{"v":1,"op":"daemon.status","args":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "usage"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_request_that_is_not_one_is_refused_in_words(alice: Machine, sent: bytes, code: str) -> None:
    """Bad bytes on the socket get an error object, and the daemon goes on."""
    alice.ok("daemon", "start")

    answer = exchange(alice, LENGTH.pack(len(sent)) + sent)

    assert answer["error"]["code"] == code
    assert alice.ok("daemon", "status")["running"] is True


def test_a_frame_that_announces_too_much_ends_the_connection(alice: Machine) -> None:
    """Nothing is allocated for it, and the daemon goes on."""
    alice.ok("daemon", "start")

    with connection(alice) as stream:
        stream.sendall(LENGTH.pack(0xFFFFFFFF) + b"x")
        assert stream.recv(1) == b""

    assert alice.ok("daemon", "status")["running"] is True


def test_status_and_stop_work_for_another_version(alice: Machine) -> None:
    """Otherwise an upgrade could not stop the daemon that it replaces."""
    alice.ok("daemon", "start")
    request = json.dumps({"v": 9, "op": "daemon.stop", "version": "9.9.9"}).encode()

    assert exchange(alice, LENGTH.pack(len(request)) + request) == {"ok": {}}

    wait_until(lambda: alice.run("daemon", "status").exit_code == 3, "the daemon has stopped")


def connection(one: Machine) -> socket.socket:
    """A raw connection to the daemon."""
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(30)
    stream.connect(os.fspath(one.config_dir / "daemon.sock"))
    return stream


def exchange(one: Machine, frame: bytes) -> dict[str, object]:
    """Send raw bytes, and read one frame."""
    with connection(one) as stream:
        stream.sendall(frame)
        reader = stream.makefile("rb")
        (length,) = LENGTH.unpack(reader.read(LENGTH.size))
        answer: dict[str, object] = json.loads(reader.read(length))
        return answer
