"""What the demonstration stands on: a broker and people's machines, as real processes in a directory of its own."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STARTED_WITHIN_S = 30
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")


class Failed(Exception):
    """The demonstration did not show what it claims."""


def say(text: str) -> None:
    """One line of narration."""
    print(text, flush=True)


def expect(claim: str, holds: bool) -> None:
    """State a claim and stop when it does not hold."""
    say(f"   {'ok ' if holds else 'NOT'}  {claim}")
    if not holds:
        raise Failed(claim)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll until `condition` holds, at most half a minute."""
    deadline = time.monotonic() + _STARTED_WITHIN_S
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"waited in vain: {what}")
        time.sleep(0.05)


@dataclass
class Machine:
    """One person's machine: a home and a configuration directory of its own."""

    name: str
    home: Path

    def run(self, *args: str, stdin: str = "") -> str:
        """Run one `claudemesh` command; returns what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "claudemesh", *args],
            input=stdin,
            env=self._environment(),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise Failed(
                f"{self.name}: claudemesh {args[0]} ended with {done.returncode}: {done.stderr or done.stdout}"
            )
        return done.stdout

    def ask(self, *args: str, stdin: str = "") -> Any:
        """Run one command with --json; returns its answer."""
        return json.loads(self.run(*args, "--json", stdin=stdin))

    def inbox(self, *args: str) -> list[dict[str, Any]]:
        """The messages that the inbox shows."""
        lines = self.run("inbox", *args, "--json").splitlines()
        return [one["message"] for one in map(json.loads, lines) if "message" in one]

    def stop_daemon(self) -> None:
        self.run("daemon", "stop")

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        return kept | {"HOME": str(self.home), "CLAUDEMESH_CONFIG_DIR": str(self.home / "mesh"), "COLUMNS": "110"}


class Broker:
    """A `claudemesh broker` process with its SQLite file."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.database = directory / "broker.db"
        self._log = directory / "broker.log"
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}/ws"

    def start(self) -> None:
        command = [sys.executable, "-m", "claudemesh", "broker", "--listen", f"127.0.0.1:{self._port}"]
        command += ["--database", f"sqlite:///{self.database}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | {"HOME": str(self._log.parent)}
            )
        wait_until(self._is_ready, "the broker is ready")

    def kill(self) -> None:
        """kill -9, as a crash or a power cut would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
            self._process.wait()
            self._process = None

    def tables(self) -> Iterator[tuple[str, int, list[tuple[Any, ...]]]]:
        """Name, length and first rows of every table, read from the file itself."""
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True) as database:
            names = [
                row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
            ]
            for name in names:
                quoted = name.replace('"', '""')
                count = database.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0]  # noqa: S608
                rows = database.execute(f'SELECT * FROM "{quoted}" LIMIT 2').fetchall()  # noqa: S608
                yield name, count, rows

    @staticmethod
    def rows_of(database: Path) -> Iterator[tuple[Any, ...]]:
        """Every row of every table of a copy of the database."""
        with sqlite3.connect(database) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (name,) in tables:
                quoted = name.replace('"', '""')
                yield from connection.execute(f'SELECT * FROM "{quoted}"').fetchall()  # noqa: S608

    def bytes_at_rest(self) -> bytes:
        """Everything that the broker has written: database, write-ahead log, key file aside, and its logs."""
        files = [one for one in self.database.parent.iterdir() if one.is_file() and not one.name.endswith(".key")]
        return b"".join(one.read_bytes() for one in files)

    def _is_ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise Failed(f"the broker did not start: {self._log.read_text()[-500:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def people(directory: Path, *names: str) -> Iterator[list[Machine]]:
    """Machines for some people; their daemons are stopped in the end."""
    machines = []
    for name in names:
        home = directory / name
        home.mkdir()
        machines.append(Machine(name, home))
    try:
        yield machines
    finally:
        for machine in machines:
            machine.stop_daemon()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
