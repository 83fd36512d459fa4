"""mcp_shim_start_ms, mcp_shim_rss_mb, tool_tokens: what a session of a host waits for, keeps, and pays per request.

mcp_http_start_ms, mcp_http_rss_mb: what it takes to serve those that speak HTTP.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import bpe_openai

from claudemesh.mcp.tools import TOOLS, listed
from tests.bench import processes
from tests.bench.command_line import User
from tests.bench.report import Figure

STARTS = 20
WARM_UP_STARTS = 3
SESSIONS = 10
HTTP_STARTS = 5
_SETTLE_S = 1.0
_INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "bench", "version": "1"},
    },
}


def measure() -> dict[str, Figure]:
    """Start the process that a host starts, beside a daemon that has served a session before."""
    with processes.directory() as path:
        user = User(path / "user")
        try:
            user.run("daemon", "start")
            before = processes.rss_bytes(user.daemon_pid)
            times, sizes = _starts(user)
            after = processes.rss_bytes(user.daemon_pid)
            per_session = _many(user)
            http_times, http_size = _http(user)
        finally:
            user.stop()
    return {
        "mcp_shim_start_ms": Figure(
            round(times, 1), "ms", round(_bare(), 1), f"start to the answered handshake, median of {STARTS}"
        ),
        "mcp_shim_rss_mb": Figure(round(sizes / 2**20, 1), "MB", note="idle, one second after the handshake"),
        "mcp_daemon_rss_mb": Figure(
            round(after / 2**20, 1), "MB", round(before / 2**20, 1), "after the first session; the floor is without one"
        ),
        "mcp_session_kb": Figure(round(per_session / 2**10), "KB", note=f"of the daemon, per session, of {SESSIONS}"),
        "mcp_http_start_ms": Figure(round(http_times), "ms", note=f"start to listening, median of {HTTP_STARTS}"),
        "mcp_http_rss_mb": Figure(round(http_size / 2**20, 1), "MB", note="idle, one second after it listens"),
        "tool_tokens": Figure(_tokens(), "tokens", note="name, description and schema of six tools, o200k_base"),
    }


def _starts(user: User) -> tuple[float, float]:
    times, sizes = [], []
    for number in range(WARM_UP_STARTS + STARTS):
        began = time.perf_counter()
        process = _session(user)
        times.append((time.perf_counter() - began) * 1_000)
        if number == WARM_UP_STARTS:
            time.sleep(_SETTLE_S)
            sizes.append(processes.rss_bytes(process.pid))
        _end(process)
    return statistics.median(times[WARM_UP_STARTS:]), statistics.median(sizes)


def _http(user: User) -> tuple[float, float]:
    """Start and size of the process that speaks HTTP, beside a daemon that runs."""
    times, sizes = [], []
    for _ in range(HTTP_STARTS):
        began = time.perf_counter()
        command = [sys.executable, "-P", "-m", "claudemesh", "mcp", "http", "--listen", "127.0.0.1:0", "--json"]
        with subprocess.Popen(command, env=user.environment, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            if b'"url"' not in process.stdout.readline():
                raise RuntimeError("the HTTP server did not start")
            times.append((time.perf_counter() - began) * 1_000)
            time.sleep(_SETTLE_S)
            sizes.append(processes.rss_bytes(process.pid))
            process.terminate()
    return statistics.median(times), statistics.median(sizes)


def _many(user: User) -> float:
    """What each further session costs the daemon."""
    before = processes.rss_bytes(user.daemon_pid)
    sessions = [_session(user) for _ in range(SESSIONS)]
    grown = processes.rss_bytes(user.daemon_pid) - before
    for one in sessions:
        _end(one)
    return max(0, grown) / SESSIONS


def _session(user: User) -> subprocess.Popen[bytes]:
    """The process, once its handshake is answered."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "claudemesh", "mcp"],
        env=user.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(_INITIALIZE).encode() + b"\n")
    process.stdin.flush()
    if b'"serverInfo"' not in process.stdout.readline():
        raise RuntimeError("the handshake was not answered")
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


def _bare() -> float:
    """A Python that does nothing, as the floor."""
    times = []
    for _ in range(STARTS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-P", "-c", ""], check=True, cwd=Path(sys.prefix))
        times.append((time.perf_counter() - began) * 1_000)
    return statistics.median(times)


def _tokens() -> int:
    encoding = bpe_openai.get_encoding("o200k_base")
    sent = [listed(tool) for tool in TOOLS]
    parts = [{"name": one.name, "description": one.description, "input_schema": one.input_schema} for one in sent]
    return sum(len(encoding.encode(json.dumps(one))) for one in parts)
