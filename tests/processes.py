"""Real processes for tests: a broker, daemons in directories of their own, and the command line.

Nothing here touches the home directory of whoever runs the tests: every process gets a HOME inside `tmp_path`.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TIMEOUT_S = 60
_STARTED_WITHIN_S = 30
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "SYSTEMROOT", "COVERAGE_PROCESS_START")


def environment(home: Path, config_dir: Path) -> dict[str, str]:
    """The surroundings of one of our processes: nothing of the machine that runs the test but its search paths."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    own = {"HOME": str(home), "CLAUDEMESH_CONFIG_DIR": str(config_dir), "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
    return kept | own


@dataclass
class Result:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one JSON object that it printed."""
        return json.loads(self.stdout)

    @property
    def json_lines(self) -> list[Any]:
        """The JSON objects that it printed, one per line."""
        return [json.loads(line) for line in self.stdout.splitlines()]


@dataclass
class Machine:
    """One user on one machine: a HOME, a configuration directory, and the commands and daemon run there."""

    home: Path
    config_dir: Path
    extra: dict[str, str] = field(default_factory=dict)
    """Environment variables of every program on this machine."""
    _started: list[subprocess.Popen[str]] = field(default_factory=list)

    def run(self, *args: str, stdin: str = "", timeout_s: float = TIMEOUT_S, **extra: str) -> Result:
        """Run one command to its end; `extra` adds environment variables."""
        return self._run(self.command(*args), stdin, timeout_s, extra)

    def run_bytes(self, *args: str | bytes) -> Result:
        """Run a command whose arguments are not all text."""
        return self._run([*map(os.fsencode, self.command()), *map(os.fsencode, args)], "", TIMEOUT_S, {})

    def run_python(self, program: str, **extra: str) -> Result:
        """Run a program of a test in these surroundings."""
        return self._run([sys.executable, "-P", "-c", program], "", TIMEOUT_S, extra)

    def _run(self, command: list[str] | list[bytes], stdin: str, timeout_s: float, extra: dict[str, str]) -> Result:
        done = subprocess.run(
            command,
            input=stdin,
            env=self.environment | extra,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def ok(self, *args: str, stdin: str = "", **extra: str) -> Any:
        """Run one command with --json that must succeed, and return its object."""
        result = self.run(*args, "--json", stdin=stdin, **extra)
        assert result.exit_code == 0, f"{args}: {result.stdout} {result.stderr}"
        return result.json

    def fails(self, *args: str, stdin: str = "", **extra: str) -> Any:
        """Run one command with --json that must fail, and return its error object with the real exit code."""
        result = self.run(*args, "--json", stdin=stdin, **extra)
        assert result.exit_code != 0, f"{args}: {result.stdout}"
        assert "Traceback" not in result.stdout + result.stderr
        error = result.json["error"]
        assert error["exit_code"] == result.exit_code
        return error

    def inbox(self, *args: str) -> list[Any]:
        """The messages that `inbox` shows."""
        result = self.run("inbox", "--json", *args)
        assert result.exit_code == 0, result.stdout + result.stderr
        return [line["message"] for line in result.json_lines if "message" in line]

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start a command that lasts; `stop` ends it."""
        process = subprocess.Popen(
            self.command(*args),
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def stop(self) -> None:
        """End the daemon and everything that was started here."""
        self.run("daemon", "stop")
        for process in self._started:
            process.kill()
            process.communicate()
        self._started.clear()

    def kill_daemon(self) -> None:
        """kill -9, as a crash or a power cut would."""
        pid = self.daemon_pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), "the daemon is gone")

    def daemon_pid(self) -> int:
        """The daemon's process, as it recorded it."""
        return int(json.loads((self.config_dir / "daemon.json").read_text())["pid"])

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.home, self.config_dir) | self.extra

    @staticmethod
    def command(*args: str) -> list[str]:
        return [sys.executable, "-P", "-m", "claudemesh", *args]


@contextmanager
def machine(tmp_path: Path, name: str) -> Iterator[Machine]:
    """A machine of its own; its daemon is stopped at the end."""
    home = tmp_path / name
    home.mkdir(mode=0o700)
    one = Machine(home, home / "config")
    try:
        yield one
    finally:
        one.stop()


@dataclass
class BrokerProcess:
    """`claudemesh broker` on a port of its own. `start` after `kill` finds the same database and key."""

    directory: Path
    port: int
    options: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    """Of its environment, besides the usual ones."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def database(self) -> Path:
        return self.directory / "broker.db"

    @property
    def log(self) -> Path:
        return self.directory / "broker.log"

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        listen, database = f"127.0.0.1:{self.port}", f"sqlite:///{self.database}"
        command = Machine.command("broker", "--listen", listen, "--database", database, *self.options)
        surroundings = environment(self.directory, self.directory / "unused") | self.variables
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=surroundings, stdout=log, stderr=log)
        wait_until(self._is_ready, "the broker is ready")

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """SIGTERM, as a service manager stops it; the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=TIMEOUT_S)

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
        return False


@contextmanager
def start_broker(
    tmp_path: Path, *options: str, name: str = "broker", variables: dict[str, str] | None = None
) -> Iterator[BrokerProcess]:
    """A running broker; killed at the end."""
    broker = BrokerProcess(tmp_path / name, free_port(), options, variables or {})
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


def installed(program: str, package: str) -> str:
    """The path of a program of the machine."""
    found = shutil.which(program)
    assert found is not None, f"{program} is missing: install {package} (Debian: apt-get install {package})"
    return found


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port of an address that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Any, what: str, within_s: float = _STARTED_WITHIN_S) -> None:
    """Poll until `condition()` is true. The deadline only ends a test that would hang; nothing is measured."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"never became true: {what}"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Whether a process runs, or could go on."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    proc = Path(f"/proc/{pid}")
    try:
        is_zombie = (proc / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        # Killed, its first thread may have ended before the others, which hold its files and sockets until they do.
        return not is_zombie or len(list((proc / "task").iterdir())) > 1
    except (FileNotFoundError, ProcessLookupError):  # it has just gone, or this system keeps no such files
        return not proc.parent.exists()


def introduce(
    broker: BrokerProcess, alice: Machine, bob: Machine, devices: tuple[str, str] = ("laptop", "desktop")
) -> None:
    """Put alice and bob, on these devices of theirs, into one mesh; returns when each knows the other's name."""
    hers, his = devices
    alice.ok("mesh", "create", "team", "--broker", broker.url, "--name", "alice", "--device", hers)
    bob.ok("join", "-", "--name", "bob", "--device", his, stdin=alice.ok("invite")["link"])
    for one, other in ((alice, f"bob.{his}"), (bob, f"alice.{hers}")):
        wait_until(lambda one=one, other=other: other in addresses(one), f"{other} is known")


def addresses(one: Machine) -> set[str]:
    """The peers that a machine lists."""
    return {peer["address"] for peer in one.ok("peers")["peers"]}
