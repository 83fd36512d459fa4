"""`make bench-long`: ten minutes of 10,000 idle links, then half an hour of load; memory has to stay flat.

Prints a line a minute and writes build/bench-long.json. A report, like `make bench`: the exit code is 1
only when something crashed or a message was lost.
"""

import argparse
import asyncio
import time
from pathlib import Path

import uvloop

from tests.bench import crowd, lanes, load, processes, report, routing
from tests.bench.report import Figure

LINKS = 100
PER_S = 2_000
MINUTE_S = 60
RESULT = processes.ROOT / "build" / "bench-long.json"


def main() -> int:
    """Run both parts, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.long", description=__doc__)
    parser.add_argument("--idle-minutes", type=float, default=10, metavar="M")
    parser.add_argument("--load-minutes", type=int, default=30, metavar="M")
    chosen = parser.parse_args()
    print(f"{crowd.LINKS:,} idle links for {chosen.idle_minutes:g} minutes", flush=True)
    figures = crowd.figures(uvloop.run(crowd.hold(chosen.idle_minutes * MINUTE_S)))
    _report(figures)
    print(f"{PER_S:,} messages a second for {chosen.load_minutes} minutes", flush=True)
    _report(figures | uvloop.run(_hold_load(chosen.load_minutes)))
    return 0


def _report(figures: dict[str, Figure]) -> None:
    """Print what there is, and keep it: the second part takes half an hour."""
    content = report.as_json(figures, dict.fromkeys(figures, "make bench-long"))
    print(f"\n{report.table(content)}\n", flush=True)
    report.write(RESULT, content)


async def _hold_load(minutes: int) -> dict[str, Figure]:
    """The same load minute after minute, on one broker and one set of links."""
    memory, p99, disk = [], [], []
    with processes.directory() as path, processes.broker(path, limits=routing.NO_LIMITS) as broker:
        mesh = await lanes.found_on(broker.url, LINKS)
        speakers = [mesh.speaker(index) for index in range(LINKS)]
        to_broker = await lanes.member_lanes(broker.url, mesh, speakers)
        for minute in range(minutes):
            started = time.perf_counter()
            recipients = routing.load_frames(to_broker, mesh, speakers, PER_S * (MINUTE_S - 10) // LINKS)
            late = await load.run_open(to_broker, PER_S)
            load.check(to_broker, recipients)
            memory.append(broker.rss_bytes / 1e6)
            p99.append(late[int(len(late) * 0.99)])
            disk.append(_size_mb(path))
            row = f"RSS {memory[-1]:.0f} MB, p99 {p99[-1]:.1f} ms, on disk {disk[-1]:.0f} MB"
            print(f"  minute {minute + 1}: {row}", flush=True)
            await asyncio.sleep(max(0.0, MINUTE_S - (time.perf_counter() - started)))
        lanes.close(to_broker)
    warm = memory[min(2, len(memory) - 1)]
    note = (
        f"after the third of {minutes} minutes {warm:.0f} MB, at the end {memory[-1]:.0f} MB; on disk {disk[-1]:.0f} MB"
    )
    return {
        "long_rss_growth_mb": Figure(round(memory[-1] - warm, 1), "MB", note=note),
        "long_p99_ms": Figure(round(max(p99), 1), "ms", note="the worst minute"),
    }


def _size_mb(path: Path) -> float:
    return sum(file.stat().st_size for file in path.iterdir()) / 1e6


if __name__ == "__main__":
    raise SystemExit(main())
