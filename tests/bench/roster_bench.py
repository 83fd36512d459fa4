"""join_1000_ms, and what an entry of the roster costs at the end of a short log and of a long one."""

import asyncio
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from claudemesh import transport
from claudemesh.crypto.invite import parse_link
from claudemesh.peer import founding
from claudemesh.peer.config import LogPin
from claudemesh.peer.events import Hub
from claudemesh.peer.founding import Surroundings
from claudemesh.peer.journal import Journal
from claudemesh.peer.keystore import Keystore
from claudemesh.peer.line import Line, dial
from claudemesh.peer.membership import Membership
from claudemesh.peer.peer import Peer
from claudemesh.peer.runtime import Runtime
from claudemesh.protocol.delivery import Stage
from claudemesh.protocol.link import LinkHolder
from claudemesh.protocol.messages import Append, Appended, Log, Sync
from claudemesh.types import PeerId
from tests.bench import lanes, processes
from tests.bench.bench_mesh import BenchMesh
from tests.bench.report import Figure

JOIN_ENTRIES = 1_000
JOINS = 5
SIZES = (10, 100, 1_000, 10_000)
SAMPLE = 100
"""Entries that are added to a log of each size."""
BETWEEN_NEWS_S = 0.03
"""Long enough that the broker announces each entry alone."""
QUIET_TIMEOUT_S = 120.0
MICRO = 1_000_000
TEXT = "x" * 300
NO_LIMITS = {
    "messages_per_second": 1_000_000,
    "messages_burst": 1_000_000,
    "requests_per_second": 1_000_000,
    "requests_burst": 1_000_000,
    "appends_per_minute": 10_000_000,
    "claims_per_minute_per_invite": 10_000,
    "claims_per_minute_per_address": 10_000,
}


def measure() -> dict[str, Figure]:
    """Joins through a real broker, then rosters of four sizes at a peer and in a broker."""
    return uvloop.run(_measure())


async def _measure() -> dict[str, Figure]:
    costs = {entries: await _costs(entries) for entries in SIZES}
    kinds = costs[SIZES[0]]
    return {"join_1000_ms": await _joins()} | {
        name: _growth({entries: found[name] for entries, found in costs.items()}) for name in kinds
    }


# Joining


async def _joins() -> Figure:
    """From a link to the first message that the broker accepted, each time in a new configuration directory."""
    with processes.directory() as path, processes.broker(path, limits=NO_LIMITS) as broker:
        mesh = await lanes.found_on(broker.url, JOIN_ENTRIES - 2)
        owner = mesh.speaker(0).peer
        took = [await _join(path / f"peer-{turn}", mesh.link(broker.url), owner) for turn in range(JOINS)]
    admitted, accepted = zip(*took, strict=True)
    note = f"median of {JOINS}, worst {max(accepted):.0f}; admitted after {statistics.median(admitted):.0f} ms"
    return Figure(round(statistics.median(accepted), 1), "ms", note=note)


async def _join(directory: Path, link: str, owner: PeerId) -> tuple[float, float]:
    """Milliseconds until admitted, and until the broker has signed that it accepted the first message."""
    started = time.perf_counter()
    async with _surroundings(directory) as around:
        joined = await founding.join(around, link, name="newcomer", device="bench")
        admitted = time.perf_counter()
        async with Peer(around.keystore, around.journal, joined.mesh) as peer:
            sent = await peer.send(owner, TEXT)
            await peer.wait_for(sent.id, Stage.ACCEPTED)
            accepted = time.perf_counter()
    return (admitted - started) * 1_000, (accepted - started) * 1_000


@asynccontextmanager
async def _surroundings(directory: Path) -> AsyncIterator[Surroundings]:
    with Keystore.open(directory) as keystore:
        async with Journal(keystore.journal_path) as journal:
            yield Surroundings(keystore, journal, transport.connect, Runtime())


# Growth


def _growth(costs: dict[int, float]) -> Figure:
    """What an entry costs in the longest log; the floor is what it costs in the shortest."""
    shown = ", ".join(f"{cost:,.0f} at {entries:,}" for entries, cost in costs.items())
    return Figure(round(costs[SIZES[-1]], 1), "µs", round(costs[SIZES[0]], 1), f"per entry: {shown}")


async def _costs(entries: int) -> dict[str, float]:
    """Microseconds per entry of a log of about as many entries."""
    with processes.directory() as path, processes.broker(path, limits=NO_LIMITS) as broker:
        mesh = await lanes.found_on(broker.url, max(entries - 2, 2))
        async with _claimant(broker.url, mesh) as line:
            sync_us, restore_us = await _sync(path, line, mesh)
            append_us, verify_us = await _append(line, mesh)
            follow_us = await _follow(path, line, mesh, mesh.link(broker.url))
    return {
        "roster_verify_us": verify_us,
        "roster_append_us": append_us,
        "roster_sync_us": sync_us,
        "roster_restore_us": restore_us,
        "roster_follow_us": follow_us,
    }


async def _sync(path: Path, line: Line, mesh: BenchMesh) -> tuple[float, float]:
    """Fetch, verify and store the whole log; then read it back as a peer does when it starts."""
    async with Journal(path / "state.db") as journal:
        started = time.perf_counter()
        await _replica(mesh, journal).catch_up(line)
        synced = time.perf_counter()
        await _replica(mesh, journal).load()
        loaded = time.perf_counter()
    count = len(mesh.entries)
    return (synced - started) / count * MICRO, (loaded - synced) / count * MICRO


def _replica(mesh: BenchMesh, journal: Journal) -> Membership:
    return Membership(mesh.id, LogPin(0, mesh.id), journal, Hub(), Runtime())


async def _append(line: Line, mesh: BenchMesh) -> tuple[float, float]:
    """Verify each entry here; then have the broker verify, commit and answer it before the next is sent."""
    appended, verified = [], []
    for number in range(SAMPLE):
        entry = mesh.draft_admission(f"appended {number}")
        started = time.perf_counter()
        mesh.roster.apply(entry)
        checked = time.perf_counter()
        await line.request(Append(rid=0, entries=[entry]), Appended)
        appended.append(time.perf_counter() - checked)
        verified.append(checked - started)
    return statistics.median(appended) * MICRO, statistics.median(verified) * MICRO


async def _follow(path: Path, line: Line, mesh: BenchMesh, link: str) -> float:
    """Processor time of this process for each entry that a running peer is told of, appending it included."""
    async with _surroundings(path / "follower") as around:
        joined = await founding.join(around, link, name="follower", device="bench")
        async with Peer(around.keystore, around.journal, joined.mesh) as peer:
            news = await line.request(Sync(rid=0, seq=mesh.roster.seq + 1), Log)
            mesh.roster.apply(news.entries[0])
            await _until_told(peer, around, mesh)
            started = time.process_time()
            for number in range(SAMPLE):
                entry = mesh.draft_admission(f"followed {number}")
                mesh.roster.apply(entry)
                await line.request(Append(rid=0, entries=[entry]), Appended)
                await asyncio.sleep(BETWEEN_NEWS_S)
            await _until_told(peer, around, mesh)
            return (time.process_time() - started) / SAMPLE * MICRO


@asynccontextmanager
async def _claimant(url: str, mesh: BenchMesh) -> AsyncIterator[Line]:
    """The line of somebody who holds the link and may append admissions."""
    invite = parse_link(mesh.link(url))
    holder = LinkHolder(invite.invite_key(), invite.mesh_prefix)
    line, _ = await dial(transport.connect, url, None, holder, Runtime())
    reading = asyncio.create_task(line.run(lambda _: None))
    try:
        yield line
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await line.close()


async def _until_told(peer: Peer, around: Surroundings, mesh: BenchMesh) -> None:
    """Wait until a peer has followed the log so far, and has told everybody in it its name."""
    give_up = time.monotonic() + QUIET_TIMEOUT_S
    others = len(mesh.roster.members) - 1
    while (told := await around.journal.read(_count_told)) < others or (await peer.describe_mesh()).outbox_open:
        if time.monotonic() > give_up:
            raise TimeoutError(f"{told} of {others} peers were told")
        await asyncio.sleep(0.05)


def _count_told(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("SELECT count(*) FROM profiles_sent").fetchone()
    return int(count)


if __name__ == "__main__":
    for name, figure in measure().items():
        print(f"{name:20} {figure.value:8} {figure.unit:3} floor {figure.floor}; {figure.note}")
