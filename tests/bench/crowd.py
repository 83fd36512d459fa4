"""idle_links_10000_…: a crowd that says nothing but that it is there, for longer than a presence lease."""

import asyncio
import time
from dataclasses import dataclass

import uvloop

from claudemesh.protocol import limits
from tests.bench import lanes, processes
from tests.bench.raw_link import RawLink, client_frame
from tests.bench.report import Figure
from tests.bench.routing import NO_LIMITS

LINKS = 10_000
MEMBERS = 200
HELD_S = 90.0
"""Longer than the 75 s after which a silent link is dropped."""
_SETTLE_S = 5.0
_PING = client_frame(b'{"t":"ping"}')


@dataclass(frozen=True, slots=True)
class Crowd:
    """What a crowd of idle links costs one broker."""

    rss_mb: float
    cpu_percent: float
    dropped: int
    held_s: float
    open_us: float
    """Processor time of the broker for one link that opens."""


def measure() -> dict[str, Figure]:
    """Open 10,000 links and hold them."""
    return figures(uvloop.run(hold(HELD_S)))


async def hold(seconds: float) -> Crowd:
    """Open the links, ping as peers do, and read what that costs."""
    processes.raise_file_limit(2 * LINKS + 1_000)
    with processes.directory() as path, processes.broker(path, limits=NO_LIMITS) as broker:
        mesh = await lanes.found_on(broker.url, MEMBERS)
        speakers = [mesh.speaker(at % MEMBERS, at // MEMBERS) for at in range(LINKS)]
        before = broker.cpu_s
        links = await lanes.open_members(broker.url, mesh, speakers)
        open_us = (broker.cpu_s - before) / LINKS * 1e6
        pinging = asyncio.create_task(_ping_forever(links))
        await asyncio.sleep(_SETTLE_S)
        started, used = time.perf_counter(), broker.cpu_s
        await asyncio.sleep(seconds)
        took = time.perf_counter() - started
        found = Crowd(
            rss_mb=round(broker.rss_bytes / 1e6, 1),
            cpu_percent=round((broker.cpu_s - used) / took * 100, 2),
            dropped=sum(link.lost is not None for link in links),
            held_s=took,
            open_us=round(open_us),
        )
        pinging.cancel()
        for link in links:
            link.close()
    return found


def figures(crowd: Crowd) -> dict[str, Figure]:
    """As rows of the table."""
    note = f"{LINKS:,} links held for {crowd.held_s:.0f} s, each with a ping every {limits.PING_INTERVAL_MS // 1000} s"
    return {
        "idle_links_10000_rss_mb": Figure(crowd.rss_mb, "MB", note=note),
        "idle_links_10000_cpu_percent": Figure(crowd.cpu_percent, "%", note=note),
        "link_open_us": Figure(
            crowd.open_us, "µs", note="processor time of the broker: handshake, presence, what waits"
        ),
        "idle_links_10000_dropped": Figure(crowd.dropped, "links", note=note),
    }


async def _ping_forever(links: list[RawLink]) -> None:
    """Each link once in a ping interval, evenly spread."""
    per_turn = len(links) // (limits.PING_INTERVAL_MS // 100)
    while True:
        for start in range(0, len(links), per_turn):
            for link in links[start : start + per_turn]:
                link.write(_PING)
            await asyncio.sleep(0.1)
