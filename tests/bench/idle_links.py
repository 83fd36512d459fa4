"""rss_per_idle_link_kb: what one open, silent link costs the broker; beside it, what it costs aiohttp alone."""

import asyncio

import uvloop

from tests.bench import lanes, processes
from tests.bench.raw_link import RawLink
from tests.bench.report import Figure
from tests.bench.routing import NO_LIMITS

LINKS = 5_000
MEMBERS = 100
WARM_UP_LINKS = 100
_SETTLE_S = 2.0
_FILES = 2 * LINKS + 1_000


def measure() -> dict[str, Figure]:
    """Open 5,000 links: 50 sessions of each of 100 members."""
    processes.raise_file_limit(_FILES)
    return uvloop.run(_measure())


async def _measure() -> dict[str, Figure]:
    alone = await _floor()
    print(f"  aiohttp alone: {alone:.1f} KB", flush=True)
    kilobytes = await _broker()
    note = f"{LINKS:,} links; the floor is the same without members"
    return {"rss_per_idle_link_kb": Figure(round(kilobytes, 1), "KB", round(alone, 1), note)}


async def _floor() -> float:
    with processes.python_server("tests.bench.floor_server") as server:
        first = await lanes.floor_lanes(server.url, [f"{at}" for at in range(WARM_UP_LINKS)])
        await asyncio.sleep(_SETTLE_S)
        before = server.rss_bytes
        rest = await lanes.floor_lanes(server.url, [f"{at}" for at in range(WARM_UP_LINKS, LINKS)])
        await asyncio.sleep(_SETTLE_S)
        used = server.rss_bytes - before
        lanes.close(first + rest)
    return used / len(rest) / 1_024


async def _broker() -> float:
    with processes.directory() as path, processes.broker(path, limits=NO_LIMITS) as broker:
        mesh = await lanes.found_on(broker.url, MEMBERS)
        speakers = [mesh.speaker(at % MEMBERS, at // MEMBERS) for at in range(LINKS)]
        first = await lanes.open_members(broker.url, mesh, speakers[:WARM_UP_LINKS])
        await asyncio.sleep(_SETTLE_S)
        before = broker.rss_bytes
        rest = await lanes.open_members(broker.url, mesh, speakers[WARM_UP_LINKS:])
        await asyncio.sleep(_SETTLE_S)
        used = broker.rss_bytes - before
        _require_open(first + rest)
        for link in first + rest:
            link.close()
    return used / len(rest) / 1_024


def _require_open(links: list[RawLink]) -> None:
    lost = [link.lost for link in links if link.lost]
    if lost:
        raise RuntimeError(f"{len(lost)} of {len(links)} idle links were lost: {lost[0]}")
