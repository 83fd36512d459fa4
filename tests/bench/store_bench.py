"""The store alone: envelopes appended, leased and acknowledged through `SqliteStore`, on a disk that is synced.

The floor is SQLite itself: inserting and deleting rows of the same size, with the same batches, in one thread.
"""

import asyncio
import os
import sqlite3
import statistics
import time
from pathlib import Path

from claudemesh.broker.store.base import Acknowledgement, LinkId, Stored, Submission
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.types import Digest, MeshId, MessageId, PeerId, UnixMillis
from tests.bench import processes

PEERS = 100
PAYLOAD = bytes(2_200)
SECONDS = 4.0
OUTSTANDING = 400
FEW_OUTSTANDING = 20
QUEUED = 100_000

MESH = MeshId("ab" * 32)
MEMBERS = [PeerId(f"{n:064x}") for n in range(PEERS)]
NOW = UnixMillis(1_800_000_000_000)


def measure() -> dict[str, dict[str, float | str]]:
    """Run every figure; about half a minute."""
    with processes.directory() as root:
        many, latency_ms = asyncio.run(_rate(root / "many", OUTSTANDING))
        few, few_latency_ms = asyncio.run(_rate(root / "few", FEW_OUTSTANDING))
        open_ms, lease_ms = asyncio.run(_reopen(root / "queued"))
        return {
            "store_dm_per_s": {"value": many, "unit": "messages/s", "floor": _floor(root / "floor", OUTSTANDING)},
            "store_commit_ms": {"value": latency_ms, "unit": "ms", "note": f"median, {OUTSTANDING} to a commit"},
            "store_dm_per_s_few": {
                "value": few,
                "unit": "messages/s",
                "floor": _floor(root / "floor-few", FEW_OUTSTANDING),
                "note": f"{FEW_OUTSTANDING} to a commit",
            },
            "store_commit_ms_few": {"value": few_latency_ms, "unit": "ms"},
            "store_open_ms": {"value": open_ms, "unit": "ms", "note": f"{QUEUED:,} rows queued"},
            "store_first_lease_ms": {"value": lease_ms, "unit": "ms", "note": "256 rows, right after opening"},
        }


def submissions(number: int) -> list[Submission]:
    """Envelopes to every member in turn, each leased to its recipient's link."""
    return [
        Submission(
            mesh=MESH,
            to=MEMBERS[n % PEERS],
            sender=MEMBERS[(n + 1) % PEERS],
            id=MessageId(os.urandom(16).hex()),
            priority="next",
            size=len(PAYLOAD),
            expires_at=UnixMillis(NOW + 1_000_000 + n),
            attestation=Digest("cd" * 32),
            payload=PAYLOAD,
            lease=LinkId(n % PEERS),
        )
        for n in range(number)
    ]


def acknowledgements(sent: list[Submission], answers: list[Stored]) -> list[Acknowledgement]:
    """What the recipients of `sent` answer, one frame each."""
    qs: dict[PeerId, list[int]] = {}
    for one, answer in zip(sent, answers, strict=True):
        qs.setdefault(one.to, []).append(answer.q)
    return [Acknowledgement(mesh=MESH, peer=peer, qs=numbers) for peer, numbers in qs.items()]


async def _rate(path: Path, outstanding: int) -> tuple[float, float]:
    """Messages per second, and the median time of a commit that appends a batch and deletes the last one."""
    store = SqliteStore(path)
    await store.open()
    for n, member in enumerate(MEMBERS):
        await store.lease(MESH, member, LinkId(n), NOW, 1)
    acks: list[Acknowledgement] = []
    delivered = 0
    commits = []
    started = time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        sent = submissions(outstanding)
        asked = time.perf_counter()
        deleted, answers = await asyncio.gather(store.acknowledge_many(acks, NOW), store.append(sent, NOW))
        commits.append(time.perf_counter() - asked)
        delivered += sum(deleted)
        acks = acknowledgements(sent, answers)
    elapsed = time.perf_counter() - started
    await store.close()
    return delivered / elapsed, statistics.median(commits) * 1_000


async def _reopen(path: Path) -> tuple[float, float]:
    """How long a store with `QUEUED` rows takes to open, and then to lease from one mailbox."""
    store = SqliteStore(path)
    await store.open()
    for _ in range(QUEUED // 1_000):
        await store.append(submissions(1_000), NOW)
    await store.close()
    store = SqliteStore(path)
    started = time.perf_counter()
    await store.open()
    opened = time.perf_counter()
    rows = await store.lease(MESH, MEMBERS[0], LinkId(1), NOW, 256)
    leased = time.perf_counter()
    if len(rows) != 256:
        raise AssertionError(f"{len(rows)} rows leased of 256")
    await store.close()
    return (opened - started) * 1_000, (leased - opened) * 1_000


def _floor(path: Path, batch: int) -> float:
    """Rows per second that SQLite inserts and deletes, nothing else around it."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE t (q INTEGER PRIMARY KEY, payload BLOB)")
    started = time.perf_counter()
    rows = 0
    while time.perf_counter() - started < SECONDS / 2:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM t")
        connection.executemany("INSERT INTO t (payload) VALUES (?)", [(PAYLOAD,)] * batch)
        connection.execute("COMMIT")
        rows += batch
    elapsed = time.perf_counter() - started
    connection.close()
    return rows / elapsed


if __name__ == "__main__":
    for figure, found in measure().items():
        print(f"{figure:24} {found['value']:10,.1f} {found['unit']:12} {found.get('note', '')}")
