"""A process that appends and acknowledges without end and prints what the store answered, for tests that kill it."""

import asyncio
import os
import sys
from pathlib import Path

from claudemesh.broker.store.base import Store, Submission
from claudemesh.broker.store.postgres import DatabaseUrl, PostgresStore
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.types import MeshId, MessageId, PeerId, UnixMillis

MESH = MeshId("ab" * 32)
ALICE, BOB = PeerId("a1" * 32), PeerId("b2" * 32)
NOW = UnixMillis(1_800_000_000_000)


def submission() -> Submission:
    return Submission(
        mesh=MESH,
        to=BOB,
        sender=ALICE,
        id=MessageId(os.urandom(16).hex()),
        priority="next",
        size=1_000,
        expires_at=UnixMillis(NOW + 1_000),
        attestation=None,
        payload=os.urandom(1_000),
    )


async def write_forever(store: Store, batch: int) -> None:
    """Print `stored ID N HASH` for each answer, and `acked ID` before an acknowledgement is asked for."""
    while True:
        sent = [submission() for _ in range(batch)]
        answers = await store.append(sent, NOW)
        for one, answer in zip(sent, answers, strict=True):
            print("stored", one.id, answer.audit_n, answer.audit_hash)
        print("acked", sent[0].id, flush=True)
        await store.acknowledge(MESH, BOB, [answers[0].q], NOW)


def store_of(target: str) -> Store:
    """The store that a path or URL names."""
    return PostgresStore(DatabaseUrl(target)) if "://" in target else SqliteStore(Path(target))


async def main(target: str) -> None:
    store = store_of(target)
    await store.open()
    await asyncio.gather(*(write_forever(store, batch) for batch in (1, 2, 5, 30)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
