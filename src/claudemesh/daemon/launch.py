"""Reach the daemon of a configuration directory, starting it when it does not run (docs/spec/ipc.md §4)."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from claudemesh.daemon.config_dir import PRIVATE_FILE, ConfigDir
from claudemesh.daemon.ipc import AnsweredError, Client
from claudemesh.errors import LocalError

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 15.0
LOCKED_RETRY_S: Final = 5.0
"""How long a daemon that another program starts at this moment may take to open its socket."""
_POLL_S: Final = 0.05

Say = Callable[[str], None]


def running(config: ConfigDir) -> Client | None:
    """A connection to the daemon, if it runs."""
    try:
        return Client(config.socket())
    except LocalError:
        return None


def connect(config: ConfigDir, say: Say | None = None) -> Client:
    """A connection to the daemon, which is started when it does not run.

    Args:
        say: Told what takes time, for a person.

    Raises:
        LocalError: `config_mode`, `config_locked` by a program that is not a daemon, `daemon_unreachable`.
        AnsweredError: The daemon could not start, and says why.
    """
    client = running(config)
    if client is not None:
        return client
    config.ensure()
    with start_lock(config.start_lock):
        client = running(config)
        if client is None:
            if say is not None:
                say("starting the daemon")
            _start(config)
            client = Client(config.socket())
    return client


def wait_until_gone(client: Client) -> None:
    """Return when the daemon at the other end of `client` has ended: it closes its connections last of all."""
    client.wait_for_end(STOP_TIMEOUT_S)


@contextlib.contextmanager
def start_lock(path: Path) -> Iterator[None]:
    """Hold the lock under which daemons are started, so that two commands start one."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _start(config: ConfigDir) -> None:
    announced = _spawn(config)
    error = announced.get("error")
    if error is None:
        return
    if error.get("code") == "config_locked" and _appears(config):
        return
    raise AnsweredError(error)


def _appears(config: ConfigDir) -> bool:
    """Whether the process that holds the directory turns out to be a daemon that just started."""
    deadline = time.monotonic() + LOCKED_RETRY_S
    while time.monotonic() < deadline:
        client = running(config)
        if client is not None:
            client.close()
            return True
        time.sleep(_POLL_S)
    return False


def _spawn(config: ConfigDir) -> dict[str, Any]:
    """Start the process and return what it announces: `{"ready": {…}}` or `{"error": {…}}`."""
    import subprocess  # 3 ms that a command pays only when there is something to start

    command = [sys.executable, "-P", "-m", "claudemesh", "daemon", "run", "--announce"]
    environment = os.environ | {"CLAUDEMESH_CONFIG_DIR": str(config.path)}
    crash_output = os.open(config.crash_output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    try:
        process = subprocess.Popen(
            command,
            cwd=config.path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=crash_output,
            start_new_session=True,
        )
    finally:
        os.close(crash_output)
    assert process.stdout is not None
    with process.stdout as pipe:
        line = _first_line(pipe.fileno())
    process.returncode = 0  # it outlives this command on purpose: no warning about an unfinished child
    try:
        announced = json.loads(line)
    except ValueError:
        detail = f"it ended while starting; see {config.crash_output}" if not line else "it did not start in time"
        raise LocalError("daemon_unreachable", detail) from None
    return announced if isinstance(announced, dict) else {}


def _first_line(descriptor: int) -> bytes:
    line, deadline = b"", time.monotonic() + START_TIMEOUT_S
    while not line.endswith(b"\n"):
        if not _readable(descriptor, deadline - time.monotonic()):
            return b"?"
        chunk = os.read(descriptor, 65_536)
        if not chunk:
            break
        line += chunk
    return line


def _readable(descriptor: int, within_s: float) -> bool:
    """Whether there is something to read before the deadline; on Windows a pipe cannot be asked, and is read."""
    import select

    return sys.platform == "win32" or bool(select.select([descriptor], [], [], max(0.0, within_s))[0])


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
