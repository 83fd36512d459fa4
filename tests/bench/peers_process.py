"""One process of real peers: `python -m tests.bench.peers_process FIRST COUNT`, driven by lines of JSON.

in   {"root", "link"}          configuration directories, and an invite link for those that are new
out  {"ids"}                   every peer is connected and has nothing left to send
in   {"ids", "messages"}       the peers of all processes; starts the load
out  {"delivered", "repeated", "finished_at"}
"""

import asyncio
import json
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from claudemesh import transport
from claudemesh.errors import Refused
from claudemesh.peer import joining
from claudemesh.peer.journal import Journal
from claudemesh.peer.keystore import Keystore
from claudemesh.peer.peer import Peer
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.surroundings import Surroundings
from claudemesh.types import PeerId

TEXT = "x" * 300
IN_A_ROW = 10
QUIET_TIMEOUT_S = 120.0
LOAD_TIMEOUT_S = 240.0
_CAS_RETRIES = 20


def directory_of(root: Path, index: int) -> Path:
    """Where one peer's configuration is."""
    return root / f"peer-{index:03}"


def recipient_of(index: int, number: int, peers: int) -> int:
    """Every peer writes to all the others in turn, ten messages at once to each."""
    return (index + 1 + number // IN_A_ROW % (peers - 1)) % peers


def expected_by(indexes: range, peers: int, messages: int) -> int:
    """How many messages some of the peers are to receive together."""
    to = Counter(recipient_of(sender, number, peers) for sender in range(peers) for number in range(messages))
    return sum(to[index] for index in indexes)


async def join(directory: Path, index: int, link: str) -> None:
    """Make a directory a peer of the mesh of `link`; others join at the same time."""
    with Keystore.open(directory) as keystore:
        async with Journal(keystore.journal_path) as journal:
            around = Surroundings(keystore, journal, transport.connect, Runtime())
            for attempt in range(_CAS_RETRIES):
                try:
                    await joining.join(around, link, name=f"peer{index}", device="bench")
                    return
                except Refused:
                    if attempt == _CAS_RETRIES - 1:
                        raise


class Tally:
    """What one process has received."""

    def __init__(self, expected: int) -> None:
        self._left = expected
        self._seen: set[tuple[PeerId, str]] = set()
        self.repeated = 0
        self.finished_at = 0.0
        self.complete = asyncio.Event()

    @property
    def delivered(self) -> int:
        return len(self._seen)

    async def receive(self, peer: Peer) -> None:
        """Count what arrives at one peer, until cancelled."""
        async for message in peer.messages():
            if message.text != TEXT:
                raise AssertionError(f"not what was sent: {message.text[:40]!r}")
            if (peer.id, message.id) in self._seen:
                self.repeated += 1
                continue
            self._seen.add((peer.id, message.id))
            self._left -= 1
            if self._left == 0:
                self.finished_at = time.time()
                self.complete.set()


async def main(first: int, count: int) -> None:
    """Serve one load."""
    start = await _next_line()
    root = Path(start["root"])
    for index in range(first, first + count):
        if not directory_of(root, index).exists():
            await join(directory_of(root, index), index, start["link"])
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(Peer.open(directory_of(root, first + at))) for at in range(count)]
        await asyncio.gather(*(peer.wait_connected() for peer in peers))
        await _until_quiet(peers)
        print(json.dumps({"ids": [peer.id for peer in peers]}), flush=True)
        load = await _next_line()
        tally = await _exchange(peers, first, load["ids"], load["messages"])
        result = {"delivered": tally.delivered, "repeated": tally.repeated, "finished_at": tally.finished_at}
        print(json.dumps(result), flush=True)
        await _next_line()  # the others may still be receiving from these peers


async def _exchange(peers: list[Peer], first: int, ids: list[PeerId], messages: int) -> Tally:
    tally = Tally(expected_by(range(first, first + len(peers)), len(ids), messages))
    readers = [asyncio.create_task(tally.receive(peer)) for peer in peers]
    try:
        async with asyncio.timeout(LOAD_TIMEOUT_S), asyncio.TaskGroup() as group:
            for at, peer in enumerate(peers):
                group.create_task(_send(peer, first + at, ids, messages))
            group.create_task(tally.complete.wait())  # type: ignore[arg-type]
    except TimeoutError:
        tally.finished_at = time.time()
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    return tally


async def _send(peer: Peer, index: int, ids: list[PeerId], messages: int) -> None:
    for start in range(0, messages, IN_A_ROW):
        to = ids[recipient_of(index, start, len(ids))]
        await asyncio.gather(*(peer.send(to, TEXT) for _ in range(min(IN_A_ROW, messages - start))))


async def _until_quiet(peers: list[Peer]) -> None:
    """Wait until the peers have told each other their names and nothing is queued."""
    give_up = time.monotonic() + QUIET_TIMEOUT_S
    while sum([(await peer.describe_mesh()).outbox_open for peer in peers]):
        if time.monotonic() > give_up:
            raise TimeoutError("the peers do not come to rest")
        await asyncio.sleep(0.2)


async def _next_line() -> dict[str, Any]:
    line = await asyncio.to_thread(sys.stdin.readline)
    found: dict[str, Any] = json.loads(line)
    return found


if __name__ == "__main__":
    transport.run(main(int(sys.argv[1]), int(sys.argv[2])))
