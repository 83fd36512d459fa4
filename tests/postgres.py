"""A real PostgreSQL server for tests: a cluster and port of its own, databases on demand; it can be killed and frozen.

The server's programs come from the machine (`.ci/run` installs them). They refuse to run as root: then they run as
another user, for whom root makes a directory.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

from tests.processes import free_port, is_alive, wait_until

USER: Final = "claudemesh"
STARTED_WITHIN_S: Final = 60
_UNPRIVILEGED: Final = ("postgres", "nobody")
_OPTIONS: Final = {
    "fsync": "on",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "unix_socket_permissions": "0777",
    "autovacuum_naptime": "5s",
    "log_min_messages": "warning",
}


class PostgresServer:
    """One server with its own data; trusted local connections, as a user who owns every database."""

    def __init__(self, directory: Path, user: str | None, **options: str) -> None:
        """Describe a server in an empty directory that `user` owns; None runs it as whoever runs the tests."""
        self.directory = directory
        self.port = free_port()
        self._user = user
        self._options = _OPTIONS | options
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)

    @property
    def pid(self) -> int:
        """The process that starts all others."""
        assert self._process is not None
        return self._process.pid

    def refused_for_space(self) -> int:
        """How often its log says that its disk was full."""
        return (self.directory / "log").read_text(errors="replace").count("No space left on device")

    def initialise(self) -> None:
        """Make the cluster."""
        args = ("-D", self.directory / "data", "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        subprocess.run([program("initdb"), *args], check=True, stdout=subprocess.DEVNULL, **self._as_user())

    def start(self) -> None:
        """Start it, on the same port each time; returns when it takes connections."""
        options = {"port": str(self.port), "listen_addresses": "127.0.0.1", **self._options}
        options["unix_socket_directories"] = str(self.directory)
        args = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program("postgres"), "-D", self.directory / "data", *args], stdout=log, stderr=log, **self._as_user()
            )
        ends_at = time.monotonic() + STARTED_WITHIN_S
        while not self._answers():
            assert time.monotonic() < ends_at, (self.directory / "log").read_text()[-2_000:]
            assert self._process.poll() is None, (self.directory / "log").read_text()[-2_000:]
            time.sleep(0.05)

    def keep_running(self) -> None:
        """Start it again if it has ended by itself, as it does when it cannot write its log; returns when it serves."""
        ends_at = time.monotonic() + STARTED_WITHIN_S
        while not self._answers():
            assert time.monotonic() < ends_at, (self.directory / "log").read_text()[-2_000:]
            if self._process is None or self._process.poll() is not None:
                self.start()
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it as its operator would: connections are ended."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL, for the server and each of its processes, in the middle of whatever they do.

        Returns when all are gone: as long as one holds the server's memory, it does not start again.
        """
        os.kill(self.pid, signal.SIGSTOP)  # it makes no more of them
        processes = self.processes()
        self._signal(signal.SIGKILL)
        self._end(signal.SIGKILL)
        wait_until(lambda: not any(is_alive(pid) for pid in processes), "every process of PostgreSQL is gone")

    def processes(self) -> list[int]:
        """The server's processes but the first."""
        found = subprocess.run(["pgrep", "-P", str(self.pid)], capture_output=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def freeze(self) -> None:
        """SIGSTOP for every process: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on after `freeze`."""
        self._signal(signal.SIGCONT)

    def database(self) -> str:
        """Make a new, empty database; returns its URL."""
        name = f"mesh_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def empty(self, url: str) -> None:
        """Remove everything from a database; quicker than a new one."""
        self.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public", url)

    def url(self, database: str) -> str:
        """The URL of a database, over the Unix socket."""
        return f"postgresql://{USER}@/{database}?host={self.directory}&port={self.port}"

    def tcp_url(self, url: str, address: str = "127.0.0.1") -> str:
        """The same database, over TCP."""
        return f"postgresql://{USER}@{address}:{self.port}/{url.partition('@/')[2].partition('?')[0]}"

    def trust(self, network: str) -> None:
        """Let everybody of a network in, from the next start on."""
        with (self.directory / "data" / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {network} trust\n")

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run one statement as an operator would with psql; `database` is a name or URL. Returns its rows."""
        target = database if "://" in database else self.url(database)
        command = [program("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", target, "-c", statement]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def _signal(self, number: signal.Signals) -> None:
        """To every process; one of a connection may end meanwhile."""
        for pid in (self.pid, *self.processes()):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _answers(self) -> bool:
        command = [program("pg_isready"), "-q", "-h", str(self.directory), "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        account = pwd.getpwnam(self._user)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": [], "cwd": "/"}


@contextmanager
def postgres_server(**options: str) -> Iterator[PostgresServer]:
    """A server that runs, and is gone with its data afterwards.

    Its directory is where temporary files are: their path is short enough for a socket, and others may enter it.
    """
    directory = Path(tempfile.mkdtemp(prefix="claudemesh-pg-"))
    try:
        with postgres_server_in(directory, **options) as server:
            server.start()
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def postgres_server_in(directory: Path, **options: str) -> Iterator[PostgresServer]:
    """A server with its data in a directory of the caller's, not yet started."""
    user = _unprivileged() if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(directory, user)
    directory.chmod(0o755)
    server = PostgresServer(directory, user, **options)
    try:
        server.initialise()
        yield server
    finally:
        if server._process is not None:
            with suppress(ProcessLookupError):
                os.kill(server.pid, signal.SIGCONT)
            server._end(signal.SIGQUIT)


def _unprivileged() -> str:
    for name in _UNPRIVILEGED:
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise AssertionError("no user to run PostgreSQL as")


def program(name: str) -> str:
    """A program of the newest server on this machine; distributions keep them out of the search path."""
    for directory in sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))[::-1]:
        if (directory / name).exists():
            return str(directory / name)
    found = shutil.which(name)
    assert found is not None, f"no {name} on this machine: install PostgreSQL 15 or newer"
    return found
