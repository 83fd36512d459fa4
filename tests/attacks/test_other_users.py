"""Another user of the same machine: each end of the daemon's socket asks the system who is at the other (ipc.md §2)."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.daemon.ipc import VERSION, Client, encode_frame
from claudemesh.errors import LocalError
from claudemesh.mcp.http.tokens import load_tokens
from tests.attacks.other_users import another_user, open_directory, socket_of_another_user
from tests.processes import Machine, machine, start_broker

ASKED = encode_frame({"v": VERSION, "version": "", "op": "daemon.status", "args": {}})


@pytest.fixture
def alice() -> Iterator[Machine]:
    """A machine with a daemon, below a directory that everybody may enter."""
    with open_directory() as directory, machine(directory, "alice") as one:
        one.ok("daemon", "start")
        yield one


def ask(path: Path) -> bytes:
    """What the daemon answers on its socket; nothing when it hangs up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        try:
            connection.sendall(ASKED)
            return connection.recv(65_536)
        except ConnectionError:
            return b""


def test_another_user_cannot_open_the_socket(alice: Machine) -> None:
    """Neither the directory nor the socket lets anybody else in."""
    with another_user(), pytest.raises(PermissionError):
        ask(alice.config_dir / "daemon.sock")


def test_another_user_who_can_open_the_socket_is_not_answered(alice: Machine) -> None:
    """Its modes were loosened since the daemon began; its owner is answered still."""
    for path in (alice.config_dir, *alice.config_dir.parents[:2]):
        path.chmod(0o755)
    path = alice.config_dir / "daemon.sock"
    path.chmod(0o666)

    with another_user():
        others = ask(path)

    assert others == b""
    assert b'"ok"' in ask(path)


def test_nobody_else_can_pass_for_the_daemon() -> None:
    """A command that finds another user's socket says nothing to it."""
    with (
        open_directory() as directory,
        socket_of_another_user(directory / "theirs" / "daemon.sock"),
        pytest.raises(LocalError) as refused,
    ):
        Client(directory / "theirs" / "daemon.sock")

    assert refused.value.code == "daemon_unreachable"
    assert refused.value.detail == "another user listens on its socket"


def test_a_place_for_sockets_that_another_user_made_first_is_refused(tmp_path: Path) -> None:
    """Where the configuration is too deep for a socket; else that user could put another one in ours' place."""
    deep = tmp_path / "d" / ("x" * 100)
    with open_directory() as temporary, machine(tmp_path, "alice") as alice:
        with another_user():
            (temporary / f"claudemesh-{os.getuid()}").mkdir(mode=0o777)
        refused = alice.fails("daemon", "start", CLAUDEMESH_CONFIG_DIR=str(deep), TMPDIR=str(temporary))
        (temporary / f"claudemesh-{os.getuid()}").rmdir()
        started = alice.ok("daemon", "start", CLAUDEMESH_CONFIG_DIR=str(deep), TMPDIR=str(temporary))
        alice.ok("daemon", "stop", CLAUDEMESH_CONFIG_DIR=str(deep), TMPDIR=str(temporary))

    assert refused["code"] == "config_mode"
    assert "belongs to another user" in refused["message"]
    assert started["running"] is True


def test_nothing_that_is_kept_is_open_to_others(tmp_path: Path) -> None:
    """Whatever the umask of who begins it: keys, texts, tokens, logs, sockets, and what a host told of its sessions."""
    begins = {"hook_event_name": "SessionStart", "session_id": "5e55-10n", "cwd": "/src", "transcript_path": "/t"}
    previous = os.umask(0)
    try:
        log = tmp_path / "broker" / "events.log"
        with machine(tmp_path, "alice") as alice, start_broker(tmp_path, "--log-file", str(log)) as broker:
            alice.ok("up")
            alice.run("hook", "claude-code", stdin=json.dumps(begins), CLAUDE_CODE_ENTRYPOINT="cli")
            load_tokens(ConfigDir(alice.config_dir), ["ide"])
            brokers = (log, *broker.directory.glob("broker.db*"))
            kept = {path: path.lstat() for path in (*alice.config_dir.rglob("*"), *brokers)}
    finally:
        os.umask(previous)

    of_daemon = {"config.json", "daemon.log", "daemon.sock", "broker.sock", "ide.token", "bells"}
    assert {path.name for path in kept} > of_daemon | {"events.log", "broker.db", "broker.db.key"}
    assert [f"{path} {found.st_mode & 0o777:04o}" for path, found in kept.items() if found.st_mode & 0o077] == []
