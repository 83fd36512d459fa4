"""broker_start_ms, broker_rss_mb and restart_recover_ms."""

import asyncio
import statistics
import time
from pathlib import Path

import uvloop

from tests.bench import lanes, load, processes
from tests.bench.bench_mesh import BenchMesh, Speaker, send_frames
from tests.bench.report import Figure
from tests.bench.routing import NO_LIMITS

STARTS = 5
QUEUED = 100_000
SENDERS = 100
RECIPIENTS = 100
_WINDOW = 16
_RETRY_S = 0.002


def measure() -> dict[str, Figure]:
    """Start an empty broker five times; then kill one that holds 100,000 messages, and start it again."""
    started, rss = _starts()
    recovered = uvloop.run(_recover())
    return {
        "broker_start_ms": Figure(round(started), "ms", note=f"process start to /ready, median of {STARTS}"),
        "broker_rss_mb": Figure(round(rss / 2**20, 1), "MB", note="idle, one second after the start"),
        "restart_recover_ms": Figure(
            round(recovered * 1_000), "ms", note=f"kill -9 with {QUEUED:,} messages queued; start to `accepted`"
        ),
    }


def _starts() -> tuple[float, float]:
    times, sizes = [], []
    with processes.directory() as path:
        for _ in range(STARTS):
            started = time.perf_counter()
            with processes.broker(path) as broker:
                times.append((time.perf_counter() - started) * 1_000)
                time.sleep(1)
                sizes.append(broker.rss_bytes)
    return statistics.median(times), statistics.median(sizes)


async def _recover() -> float:
    with processes.directory() as path:
        port = processes.free_port()
        process = processes.start_broker(path, port, NO_LIMITS)
        try:
            processes.wait_ready(process, port)
            mesh, speakers = await _queue(f"ws://127.0.0.1:{port}/ws")
        finally:
            process.kill()
            process.wait()
        return await _restart(path, port, mesh, speakers[0])


async def _queue(url: str) -> tuple[BenchMesh, list[Speaker]]:
    """Send to members that are offline, until everything is accepted."""
    mesh = await lanes.found_on(url, SENDERS + RECIPIENTS)
    speakers = [mesh.speaker(at) for at in range(SENDERS)]
    offline = [mesh.speaker(SENDERS + at).peer for at in range(RECIPIENTS)]
    senders = await lanes.member_lanes(url, mesh, speakers)
    for lane, speaker in zip(senders, speakers, strict=True):
        lane.frames = send_frames(mesh, speaker, offline * (QUEUED // SENDERS // RECIPIENTS))
    await load.run_to_offline(senders, _WINDOW)
    lanes.close(senders)
    return mesh, speakers


async def _restart(path: Path, port: int, mesh: BenchMesh, speaker: Speaker) -> float:
    """Seconds from the start of the process until it accepted a further message."""
    url = f"ws://127.0.0.1:{port}/ws"
    started = time.perf_counter()
    process = processes.start_broker(path, port, NO_LIMITS)
    try:
        while True:
            try:
                lane = (await lanes.member_lanes(url, mesh, [speaker]))[0]
                break
            except OSError:
                await asyncio.sleep(_RETRY_S)
        lane.frames = send_frames(mesh, speaker, [mesh.speaker(SENDERS).peer])
        await load.run_to_offline([lane], 1)
        return time.perf_counter() - started
    finally:
        processes.end(process)
