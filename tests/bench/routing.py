"""durable_dm_per_s against floor_route_per_s, and dm_p50_ms_at_2000, dm_p99_ms_at_2000."""

import asyncio
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import uvloop

from claudemesh.types import PeerId
from tests.bench import lanes, load, processes
from tests.bench.bench_mesh import BenchMesh, Speaker, found, send_frames
from tests.bench.load import Lane
from tests.bench.report import Figure

UntilDeleted = Callable[[], Awaitable[float]]
"""Waits until a broker's database holds no message any more; returns how many seconds that took."""

LINKS = 100
WINDOW = 32
MESSAGES_PER_LINK = 400
WARM_UP_PER_LINK = 100
ROUNDS = 3
OPEN_LOOP_PER_S = 2_000
OPEN_LOOP_S = 4
NO_LIMITS = {
    "messages_per_second": 1_000_000,
    "messages_burst": 1_000_000,
    "links_per_peer": 1_000,
    "answer_within_ms": 60_000,
}


def measure() -> dict[str, Figure]:
    """Floor and broker in turn, three times; then the open loop."""
    return uvloop.run(_measure())


async def _measure() -> dict[str, Figure]:
    with processes.directory() as path, processes.python_server("tests.bench.floor_server") as floor:
        with processes.broker(path, limits=NO_LIMITS) as broker:
            mesh = await lanes.found_on(broker.url, LINKS)
            speakers = [mesh.speaker(index) for index in range(LINKS)]
            to_broker = await lanes.member_lanes(broker.url, mesh, speakers)
            to_floor = await lanes.floor_lanes(floor.url, [speaker.peer for speaker in speakers])
            await closed(to_broker, mesh, speakers, WARM_UP_PER_LINK)
            await closed(to_floor, mesh, speakers, WARM_UP_PER_LINK)
            routed, durable = [], []
            for turn in range(ROUNDS):
                routed.append(await one_round(to_floor, mesh, speakers, floor))
                durable.append(await one_round(to_broker, mesh, speakers, broker, partial(until_deleted, path)))
                print(f"  round {turn + 1}: floor {routed[-1][0]:,.0f}/s, broker {durable[-1][0]:,.0f}/s", flush=True)
            latencies = [_percentiles(await _open(to_broker, mesh, speakers)) for _ in range(ROUNDS)]
            lanes.close(to_broker + to_floor)
    return _figures(routed, durable, latencies)


async def floor_only() -> None:
    """Only the floor, to try the generator itself."""
    mesh = found("00" * 32, LINKS)
    speakers = [mesh.speaker(index) for index in range(LINKS)]
    with processes.python_server("tests.bench.floor_server") as floor:
        to_floor = await lanes.floor_lanes(floor.url, [speaker.peer for speaker in speakers])
        for _ in range(ROUNDS):
            rate, cpu = await one_round(to_floor, mesh, speakers, floor)
            print(f"floor {rate:,.0f}/s, {cpu:.1f} µs of the server's CPU each")
        print(_percentiles(await _open(to_floor, mesh, speakers)))


async def one_round(
    to_server: list[Lane],
    mesh: BenchMesh,
    speakers: list[Speaker],
    server: processes.Server,
    until_deleted: UntilDeleted | None = None,
) -> tuple[float, float]:
    """One closed-loop round: messages per second, and µs of the server's CPU per message."""
    used = server.cpu_s
    seconds = await closed(to_server, mesh, speakers, MESSAGES_PER_LINK, until_deleted)
    messages = MESSAGES_PER_LINK * len(to_server)
    return messages / seconds, (server.cpu_s - used) / messages * 1e6


async def closed(
    to_server: list[Lane],
    mesh: BenchMesh,
    speakers: list[Speaker],
    per_link: int,
    until_deleted: UntilDeleted | None = None,
) -> float:
    """One closed loop; seconds until everything is delivered and, where that can be seen, deleted."""
    recipients = load_frames(to_server, mesh, speakers, per_link)
    seconds = await load.run_closed(to_server, WINDOW)
    if until_deleted is not None:
        seconds += await until_deleted()
    load.check(to_server, recipients)
    return seconds


async def _open(to_server: list[Lane], mesh: BenchMesh, speakers: list[Speaker]) -> list[float]:
    recipients = load_frames(to_server, mesh, speakers, OPEN_LOOP_PER_S * OPEN_LOOP_S // len(to_server))
    latencies = await load.run_open(to_server, OPEN_LOOP_PER_S)
    load.check(to_server, recipients)
    return latencies


def load_frames(to_server: list[Lane], mesh: BenchMesh, speakers: list[Speaker], per_link: int) -> dict[str, str]:
    """Give each lane frames to all the others in turn; returns the recipient of each message."""
    load.clear(to_server)
    recipients: dict[str, str] = {}
    peers = [speaker.peer for speaker in speakers]
    for at, (lane, speaker) in enumerate(zip(to_server, speakers, strict=True)):
        turn = [_other(peers, at, number) for number in range(per_link)]
        lane.frames = send_frames(mesh, speaker, turn)
        recipients.update(zip((message for message, _ in lane.frames), turn, strict=True))
    return recipients


def _other(peers: list[PeerId], at: int, number: int) -> PeerId:
    return peers[(at + 1 + number % (len(peers) - 1)) % len(peers)]


async def until_deleted(path: Path) -> float:
    """Seconds until the broker's own database holds no message any more."""
    started = time.perf_counter()
    database = sqlite3.connect(f"file:{path / 'broker.sqlite3'}?mode=ro", uri=True)
    try:
        while database.execute("SELECT EXISTS (SELECT 1 FROM mailbox)").fetchone()[0]:
            if time.perf_counter() - started > load.STALL_S:
                raise load.MessageLost("acknowledged messages are still stored")
            await asyncio.sleep(0.002)
    finally:
        database.close()
    return time.perf_counter() - started


def _figures(
    routed: list[tuple[float, float]], durable: list[tuple[float, float]], latencies: list[tuple[float, float, float]]
) -> dict[str, Figure]:
    floor, cost = statistics.median(rate for rate, _ in routed), statistics.median(cpu for _, cpu in routed)
    broker, spent = statistics.median(rate for rate, _ in durable), statistics.median(cpu for _, cpu in durable)
    p50, p99, worst = (statistics.median(column) for column in zip(*latencies, strict=True))
    count = f"median of {ROUNDS} × {OPEN_LOOP_PER_S * OPEN_LOOP_S:,} messages, {LINKS} links"
    return {
        "floor_route_per_s": Figure(floor, "msg/s", note=f"{cost:.0f} µs of the server's CPU per message"),
        "durable_dm_per_s": Figure(
            broker,
            "msg/s",
            floor,
            f"median of {ROUNDS} × {LINKS * MESSAGES_PER_LINK:,} messages, "
            f"{WINDOW} unanswered per link; {spent:.0f} µs of the broker's CPU per message",
        ),
        "dm_p50_ms_at_2000": Figure(p50, "ms", note=count),
        "dm_p99_ms_at_2000": Figure(p99, "ms", note=f"{count}; worst {worst:.0f} ms"),
    }


def _percentiles(latencies: list[float]) -> tuple[float, float, float]:
    return latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)], latencies[-1]


if __name__ == "__main__":
    uvloop.run(floor_only())
