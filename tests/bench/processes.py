"""Real processes: start, wait until ready, read memory and CPU time, end."""

import contextlib
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READY_TIMEOUT_S = 60.0
_POLL_S = 0.002


@dataclass(slots=True)
class Server:
    """A running server process and where it listens."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def rss_bytes(self) -> int:
        return rss_bytes(self.process.pid)

    @property
    def cpu_s(self) -> float:
        return cpu_s(self.process.pid)


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """A directory on the project's own disk (a memory file system would make every commit free)."""
    base = ROOT / "build"
    base.mkdir(exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="bench-", dir=base))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """A variable of the environment, here and in processes that are started meanwhile."""
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


@contextlib.contextmanager
def python_server(module: str) -> Iterator[Server]:
    """A module of this package that prints its port and serves."""
    process = subprocess.Popen([sys.executable, "-m", module], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield Server(process, int(process.stdout.readline()))
    finally:
        end(process)


@contextlib.contextmanager
def broker(
    path: Path,
    *options: str,
    port: int | None = None,
    limits: dict[str, int] | None = None,
    database: str | None = None,
) -> Iterator[Server]:
    """`claudemesh broker` on the SQLite file of `path`, or on another database, ready to accept."""
    port = port or free_port()
    process = start_broker(path, port, limits or {}, database, options)
    try:
        wait_ready(process, port)
        yield Server(process, port)
    finally:
        end(process)


def start_broker(
    path: Path, port: int, limits: dict[str, int], database: str | None = None, options: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start the broker; it is not ready yet."""
    command = [str(Path(sys.executable).parent / "claudemesh"), "broker", "--listen", f"127.0.0.1:{port}"]
    command += [
        "--database",
        database or f"sqlite:///{path / 'broker.sqlite3'}",
        "--key",
        str(path / "broker.key"),
        *options,
    ]
    for name, value in limits.items():
        command += ["--limit", f"{name}={value}"]
    with (path / "broker.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=path)


def wait_ready(process: subprocess.Popen[bytes], port: int) -> None:
    """Return as soon as `/ready` says yes."""
    give_up = time.monotonic() + READY_TIMEOUT_S
    while not _is_ready(port):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        if time.monotonic() > give_up:
            raise RuntimeError("the server is not ready")
        time.sleep(_POLL_S)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to end, and wait for it."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def raise_file_limit(files: int) -> None:
    """Allow this process and its children `files` open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, hard), hard))


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text())
        return int(found[1]) * 1024 if found else 0
    return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(pid)])) * 1024


def cpu_s(pid: int) -> float:
    """Processor time that a process has used."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    minutes, _, seconds = subprocess.check_output(["ps", "-o", "time=", "-p", str(pid)], text=True).rpartition(":")
    return float(seconds) + 60 * sum(60**place * int(part) for place, part in enumerate(reversed(minutes.split(":"))))


def family_cpu_s(pid: int, children: Sequence[int]) -> float:
    """Processor time of a process and its children, also of those that have ended."""
    stat = Path(f"/proc/{pid}/stat")
    ended = 0.0
    if stat.exists():
        fields = stat.read_text().rpartition(")")[2].split()
        ended = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    living = 0.0
    for child in children:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):  # it has ended just now
            living += cpu_s(child)
    return cpu_s(pid) + ended + living


def _is_ready(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as http:
            http.sendall(b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return http.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
