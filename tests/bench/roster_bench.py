"""join_1000_ms, and what an entry of the roster costs at the end of a short log and of a long one."""

import asyncio
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from claudemesh import transport
from claudemesh.crypto.invite import parse_link
from claudemesh.crypto.primitives import box_key, box_once
from claudemesh.peer import joining
from claudemesh.peer.config import LogPin
from claudemesh.peer.events import Hub
from claudemesh.peer.journal import Journal
from claudemesh.peer.keystore import Keystore
from claudemesh.peer.line import Line, dial
from claudemesh.peer.membership import Membership
from claudemesh.peer.peer import Peer
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.surroundings import Surroundings
from claudemesh.protocol.delivery import Stage
from claudemesh.protocol.link import LinkHolder
from claudemesh.protocol.messages import Append, Appended, Log, Sync
from claudemesh.protocol.roster import EVERYONE, verify_signatures
from claudemesh.types import PeerId
from tests.bench import lanes, processes
from tests.bench.bench_mesh import BenchMesh
from tests.bench.report import Figure

JOIN_ENTRIES = 1_000
JOINS = 5
ROTATIONS = 9
SIZES = (10, 100, 1_000, 10_000)
SAMPLE = 100
"""Entries that are added to a log of each size."""
BLOCKS = 10
"""Turns in which a peer follows them."""
SYNCS = 3
BETWEEN_NEWS_S = 0.03
"""Long enough that the broker announces each entry alone."""
QUIET_TIMEOUT_S = 120.0
MICRO = 1_000_000
TEXT = "x" * 300
NO_LIMITS = {
    "messages_per_second": 1_000_000,
    "messages_burst": 1_000_000,
    "epoch_interval_ms": 1,
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
    return await _joins() | await _growths()


# Joining


async def _joins() -> dict[str, Figure]:
    """From a link to the first message that the broker accepted, each time in a new configuration directory."""
    with processes.directory() as path, processes.broker(path, limits=NO_LIMITS) as broker:
        mesh = await lanes.found_on(broker.url, JOIN_ENTRIES - 2)
        owner = mesh.speaker(0).peer
        took, floors = [], []
        for turn in range(JOINS):
            took.append(await _join(path / f"peer-{turn}", mesh.link(broker.url), owner))
            floors.append(_signatures_ms(mesh))
        async with _claimant(broker.url, mesh) as line:
            rotations, boxes = zip(*await _rotations(path / "rotator", mesh, line, broker.url), strict=True)
    admitted, accepted = zip(*took, strict=True)
    note = f"median of {JOINS}, worst {max(accepted):.0f}; admitted after {statistics.median(admitted):.0f} ms"
    rotated = f"after an admission: made, sealed to each, journaled, uploaded, stored, answered; median of {ROTATIONS}"
    return {
        "join_1000_ms": Figure(round(statistics.median(accepted), 1), "ms", round(statistics.median(floors), 1), note),
        "rotate_1000_ms": Figure(
            round(statistics.median(rotations), 1), "ms", round(statistics.median(boxes), 1), rotated
        ),
    }


async def _rotations(directory: Path, mesh: BenchMesh, line: Line, url: str) -> list[tuple[float, float]]:
    """Milliseconds to replace the secret that all members share, for each newcomer; and to seal as many boxes."""
    async with _surroundings(directory) as around:
        joined = await joining.join(around, mesh.link(url), name="rotator", device="bench")
        async with Peer(around.keystore, around.journal, joined.mesh) as peer:
            await peer.wait_connected()
            news = await line.request(Sync(rid=0, seq=mesh.roster.seq + 1), Log)
            for entry in news.entries:
                mesh.roster.apply(entry)
            await _until_told(peer, around, mesh)
            await peer.rotate_scopes([EVERYONE])  # once before, since it asks for the cards of all
            took = []
            for number in range(ROTATIONS):
                entry = mesh.draft_admission(f"reason {number}")
                mesh.roster.apply(entry)
                await line.request(Append(rid=0, entries=[entry]), Appended)
                await _until_told(peer, around, mesh)
                started = time.perf_counter()
                await peer.rotate_scopes([EVERYONE])
                rotated = time.perf_counter()
                _seal_for_each(mesh)
                took.append(((rotated - started) * 1_000, (time.perf_counter() - rotated) * 1_000))
    return took


def _seal_for_each(mesh: BenchMesh) -> None:
    """What a rotation cannot do without: a secret sealed to every member, and nothing else."""
    secret = box_key(bytes(32)).secret
    for member in mesh.roster.active_members():
        box_once(bytes(32), bytes(24), member.box, secret)


def _signatures_ms(mesh: BenchMesh) -> float:
    """Milliseconds to verify every signature of a log on one core, and nothing else."""
    started = time.perf_counter()
    for entry in mesh.entries:
        verify_signatures(entry)
    return (time.perf_counter() - started) * 1_000


async def _join(directory: Path, link: str, owner: PeerId) -> tuple[float, float]:
    """Milliseconds until admitted, and until the broker has signed that it accepted the first message."""
    started = time.perf_counter()
    async with _surroundings(directory) as around:
        joined = await joining.join(around, link, name="newcomer", device="bench")
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


@dataclass(slots=True)
class Site:
    """A mesh with a log of some length, somebody who may append to it, and what entries cost there."""

    path: Path
    mesh: BenchMesh
    line: Line
    link: str
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def note(self, name: str, seconds: float) -> None:
        self.seconds.setdefault(name, []).append(seconds)


async def _growths() -> dict[str, Figure]:
    """Logs of all sizes take turns, so that whatever else the machine does meets all of them."""
    with processes.directory() as path, processes.broker(path, limits=NO_LIMITS) as broker:
        async with AsyncExitStack() as stack:
            sites = [await _site(stack, _new(path, size), broker.url, size) for size in SIZES]
            for turn in range(SYNCS):
                for site in sites:
                    await _sync(site, turn)
            for number in range(SAMPLE):
                for site in sites:
                    await _append(site, f"appended {number}")
            peers = [await _follower(stack, site) for site in sites]
            for block in range(BLOCKS):
                for site, (peer, around) in zip(sites, peers, strict=True):
                    await _follow(site, peer, around, block)
    return {name: _growth(name, sites) for name in sites[0].seconds}


def _growth(name: str, sites: list[Site]) -> Figure:
    """What an entry costs in the longest log; the floor is what it costs in the shortest."""
    costs = [statistics.median(site.seconds[name]) * MICRO for site in sites]
    shown = ", ".join(f"{cost:,.0f} at {size:,}" for size, cost in zip(SIZES, costs, strict=True))
    return Figure(round(costs[-1], 1), "µs", round(costs[0], 1), f"per entry: {shown}")


async def _site(stack: AsyncExitStack, path: Path, url: str, entries: int) -> Site:
    mesh = await lanes.found_on(url, max(entries - 2, 2))
    return Site(path, mesh, await stack.enter_async_context(_claimant(url, mesh)), mesh.link(url))


def _new(path: Path, size: int) -> Path:
    made = path / str(size)
    made.mkdir()
    return made


async def _sync(site: Site, turn: int) -> None:
    """Fetch, verify and store the whole log; then read it back as a peer does when it starts."""
    count = len(site.mesh.entries)
    async with Journal(site.path / f"state-{turn}.db") as journal:
        started = time.perf_counter()
        await _replica(site.mesh, journal).catch_up(site.line)
        synced = time.perf_counter()
        await _replica(site.mesh, journal).load()
        loaded = time.perf_counter()
    site.note("roster_sync_us", (synced - started) / count)
    site.note("roster_restore_us", (loaded - synced) / count)


def _replica(mesh: BenchMesh, journal: Journal) -> Membership:
    return Membership(mesh.id, LogPin(0, mesh.id), journal, Hub(), Runtime())


async def _append(site: Site, name: str) -> None:
    """Verify an entry here; then have the broker verify, commit and answer it."""
    entry = site.mesh.draft_admission(name)
    started = time.perf_counter()
    site.mesh.roster.apply(entry)
    checked = time.perf_counter()
    await site.line.request(Append(rid=0, entries=[entry]), Appended)
    site.note("roster_verify_us", checked - started)
    site.note("roster_append_us", time.perf_counter() - checked)


async def _follower(stack: AsyncExitStack, site: Site) -> tuple[Peer, Surroundings]:
    """A peer that has joined, and has told everybody its name."""
    around = await stack.enter_async_context(_surroundings(site.path / "follower"))
    joined = await joining.join(around, site.link, name="follower", device="bench")
    peer = await stack.enter_async_context(Peer(around.keystore, around.journal, joined.mesh))
    news = await site.line.request(Sync(rid=0, seq=site.mesh.roster.seq + 1), Log)
    site.mesh.roster.apply(news.entries[0])
    await _until_told(peer, around, site.mesh)
    return peer, around


async def _follow(site: Site, peer: Peer, around: Surroundings, block: int) -> None:
    """Processor time of this process for each entry that a running peer is told of, appending it included."""
    started = time.process_time()
    for number in range(SAMPLE // BLOCKS):
        entry = site.mesh.draft_admission(f"followed {block} {number}")
        site.mesh.roster.apply(entry)
        await site.line.request(Append(rid=0, entries=[entry]), Appended)
        await asyncio.sleep(BETWEEN_NEWS_S)
    await _until_told(peer, around, site.mesh)
    site.note("roster_follow_us", (time.process_time() - started) / (SAMPLE // BLOCKS))


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
