"""long_roster_*: a roster as long as a broker lets it become, of peers of whom nobody ever left: the worst case."""

import asyncio
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

from claudemesh.broker.key import load_key
from claudemesh.broker.policy import Limits
from claudemesh.peer.runtime import wall_clock
from claudemesh.protocol import messages
from claudemesh.protocol.limits import HOUR_MS
from claudemesh.types import BrokerId, UnixMillis
from tests import large_logs
from tests.attacks.wire_member import WireMember, dialled
from tests.bench import processes
from tests.bench.report import Figure
from tests.bench.routing import NO_LIMITS

ENTRIES = Limits().roster_entries
MIB = 1 << 20
PATIENCE_S = 120
PEER = """
import asyncio, os, sys
from pathlib import Path
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.broker.directory import decode_entries
from claudemesh.protocol.roster import Roster
from tests.bench.processes import rss_bytes

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    before, entries = rss_bytes(os.getpid()), []
    while raws := await store.entries(sys.argv[2], len(entries), 200):
        entries += decode_entries(raws)
    roster = Roster.restore(entries)
    print(rss_bytes(os.getpid()) - before)
    await store.close()

asyncio.run(main())
"""
"""What a peer keeps: every entry, which it may have to give back to a broker, and the roster."""


def measure() -> dict[str, Figure]:
    """A broker that loads it for the first link, and what a peer has of it in memory."""
    return asyncio.run(_measure())


async def _measure() -> dict[str, Figure]:
    with processes.directory() as path:
        owner, at = WireMember("owner"), UnixMillis(wall_clock() - HOUR_MS)
        broker = BrokerId(load_key(path / "broker.key").public)
        lines = list(islice(large_logs.admissions(owner.keys, broker, at), ENTRIES))
        mesh = await large_logs.stored(path / "broker.sqlite3", lines, at)
        owner.roster.restore_more(entry for entry, _ in lines)
        with processes.broker(path, limits=NO_LIMITS) as server:
            idle, began = server.rss_bytes, time.perf_counter()
            async with dialled(server.url) as link:
                await link.send(owner.hello(await link.challenge()))
                assert isinstance(await link.receive(PATIENCE_S), messages.HelloAck)
            took_s = time.perf_counter() - began
            grown = server.rss_bytes - idle
        peer = _peer_bytes(path / "broker.sqlite3", mesh)
    note = f"{ENTRIES:,} entries, {sum(len(entry.b) for entry, _ in lines) / MIB:.0f} MiB of bodies"
    return {
        "long_roster_load_s": Figure(round(took_s, 1), "s", note=f"the first link after a start; {note}"),
        "long_roster_broker_mib": Figure(round(grown / MIB), "MiB", note=note),
        "long_roster_peer_mib": Figure(round(peer / MIB), "MiB", note=f"with every entry; {note}"),
    }


def _peer_bytes(database: Path, mesh: str) -> int:
    command = [sys.executable, "-c", PEER, str(database), mesh]
    return int(subprocess.run(command, cwd=processes.ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout)
