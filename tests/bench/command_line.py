"""cli_send_ms, daemon_rss_mb and daemon_idle_cpu_percent: what a person waits for, and what stays behind."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import processes
from tests.bench.report import Figure

SENDS = 20
WARM_UP_SENDS = 3
_SETTLE_S = 3.0
_IDLE_S = 20.0
_CLAUDEMESH = str(Path(sys.executable).parent / "claudemesh")


class User:
    """One configuration directory, used through the command line only."""

    def __init__(self, path: Path) -> None:
        self._config = path
        self.environment = {**os.environ, "CLAUDEMESH_CONFIG_DIR": str(path)}

    def run(self, *arguments: str) -> str:
        """Run one verb to its end; a failure raises."""
        done = subprocess.run([_CLAUDEMESH, *arguments], env=self.environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"claudemesh {arguments[0]} failed: {done.stdout} {done.stderr}")
        return done.stdout

    @property
    def daemon_pid(self) -> int:
        pid: int = json.loads((self._config / "daemon.json").read_text())["pid"]
        return pid

    def stop(self) -> None:
        subprocess.run([_CLAUDEMESH, "daemon", "stop"], env=self.environment, capture_output=True)


@contextmanager
def two_users() -> Iterator[tuple[User, User]]:
    """Alice and Bob in one mesh on one broker."""
    with processes.directory() as path, processes.broker(path) as broker:
        alice, bob = User(path / "alice"), User(path / "bob")
        try:
            alice.run("mesh", "create", "bench", "--broker", broker.url, "--name", "alice", "--device", "desktop")
            link = json.loads(alice.run("invite", "--mesh", "bench", "--json"))["link"]
            bob.run("join", link, "--name", "bob", "--device", "laptop")
            yield alice, bob
        finally:
            alice.stop()
            bob.stop()


def measure() -> dict[str, Figure]:
    """Two users on one broker: alice sends to bob, then both are silent."""
    with two_users() as (alice, bob):
        sent, bare = _sends(alice)
        print(f"  send {sent:.0f} ms, bare Python {bare:.0f} ms; {_IDLE_S:.0f} s of silence", flush=True)
        rss, cpu_percent = _idle(bob.daemon_pid)
    return {
        "cli_send_ms": Figure(round(sent, 1), "ms", round(bare, 1), f"whole process, median of {SENDS}"),
        "daemon_rss_mb": Figure(round(rss / 2**20, 1), "MB", note="one mesh, after a few messages"),
        "daemon_idle_cpu_percent": Figure(round(cpu_percent, 2), "%", note=f"over {_IDLE_S:.0f} s"),
    }


def bare_ms() -> float:
    """Milliseconds of a Python that does nothing."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return (time.perf_counter() - started) * 1_000


def _sends(alice: User) -> tuple[float, float]:
    """Milliseconds of one `send`, and of a Python that does nothing, in turn."""
    sent, bare = [], []
    for number in range(WARM_UP_SENDS + SENDS):
        started = time.perf_counter()
        alice.run("send", "bob", f"message {number}")
        sent.append((time.perf_counter() - started) * 1_000)
        bare.append(bare_ms())
    return statistics.median(sent[WARM_UP_SENDS:]), statistics.median(bare[WARM_UP_SENDS:])


def _idle(pid: int) -> tuple[int, float]:
    """Memory of a silent daemon, and its share of one core."""
    time.sleep(_SETTLE_S)
    used = processes.cpu_s(pid)
    time.sleep(_IDLE_S)
    return processes.rss_bytes(pid), (processes.cpu_s(pid) - used) / _IDLE_S * 100
