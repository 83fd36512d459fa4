"""What faults are injected into: a broker and daemons, each started, killed and started again at any moment.

They are children of the test, so that a kill is over when `kill` returns. Starting does not wait: a process may be
killed while it starts.
"""

import json
import os
import select
import subprocess
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, Protocol

from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.daemon.ipc import Client
from tests.processes import BrokerProcess, Machine, environment

READY_WITHIN_S: Final = 60.0
"""Only ends a test that would hang."""
_POLL_S: Final = 0.02


class Victim(Protocol):
    """A process that holds durable state."""

    name: str

    @property
    def journal(self) -> Path:
        """The write-ahead log that grows with each commit."""
        ...

    def spawn(self) -> None:
        """Start it, and return at once."""
        ...

    def is_ready(self) -> bool:
        """Whether it serves."""
        ...

    def kill(self) -> None:
        """kill -9; returns when the process is gone."""
        ...


class BrokerVictim:
    """The broker, on one port, database and key for its whole life."""

    def __init__(self, process: BrokerProcess) -> None:
        self.name = "broker"
        self._process = process

    @property
    def journal(self) -> Path:
        return self._process.database.with_name(self._process.database.name + "-wal")

    def spawn(self) -> None:
        process = self._process
        process.directory.mkdir(mode=0o700, exist_ok=True)
        command = Machine.command(
            "broker", "--listen", f"127.0.0.1:{process.port}", "--database", f"sqlite:///{process.database}"
        )
        with process.log.open("ab") as log:
            process.process = subprocess.Popen(
                [*command, *process.options],
                env=environment(process.directory, process.directory / "unused"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def is_ready(self) -> bool:
        assert self._process.process is not None
        assert self._process.process.poll() is None, self._process.log.read_text()[-4_000:]
        with (
            suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{self._process.port}/ready", timeout=5) as answer,
        ):
            return bool(answer.status == 200)
        return False

    def kill(self) -> None:
        self._process.kill()


class DaemonVictim:
    """The daemon of one machine, in the foreground as a service manager would run it."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.name = name
        self.machine = machine
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._lock = threading.Lock()

    @property
    def socket(self) -> Path:
        return ConfigDir(self.machine.config_dir).socket()

    @property
    def journal(self) -> Path:
        return self.machine.config_dir / "state.db-wal"

    @property
    def output(self) -> Path:
        return self.machine.home / "daemon.output"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def spawn(self) -> None:
        with self.output.open("ab") as output:
            self._ready = False
            self._process = subprocess.Popen(
                Machine.command("daemon", "run", "--announce"),
                env=self.machine.environment,
                cwd=self.machine.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
            )

    def is_ready(self) -> bool:
        with self._lock:
            process = self._process
            assert process is not None
            assert process.stdout is not None
            if not self._ready and select.select([process.stdout], [], [], 0)[0]:
                self._ready = _announced(process.stdout, self.output)
            return self._ready

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        with self._lock:
            assert self._process.stdout is not None
            self._process.stdout.close()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(timeout=READY_WITHIN_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code

    def client(self, timeout_s: float | None = READY_WITHIN_S) -> Client:
        """A connection as a command makes one, or `LocalError` while nobody listens."""
        return Client(self.socket, timeout_s)


def start(victim: Victim) -> None:
    """Start it, and wait until it serves."""
    victim.spawn()
    wait_ready(victim)


def wait_ready(victim: Victim, stopped: threading.Event | None = None) -> None:
    """Return when it serves, or when `stopped` is set."""
    deadline = time.monotonic() + READY_WITHIN_S
    while not victim.is_ready():
        if stopped is not None and stopped.is_set():
            return
        assert time.monotonic() < deadline, f"{victim.name} did not become ready"
        time.sleep(_POLL_S)


def _announced(pipe: IO[bytes], output: Path) -> bool:
    line = os.read(pipe.fileno(), 65_536)
    announced = json.loads(line) if line else {}
    assert "ready" in announced, f"the daemon refused to start: {line!r} {output.read_text()[-4_000:]}"
    return True
