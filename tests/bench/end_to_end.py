"""e2e_100x1000_s and e2e_delivered: real peers seal, journal, send, open and acknowledge, in two processes."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from claudemesh import transport
from claudemesh.peer import founding
from claudemesh.peer.journal import Journal
from claudemesh.peer.keystore import Keystore
from claudemesh.peer.peer import Peer
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.surroundings import Surroundings
from tests.bench import processes
from tests.bench.peers_process import directory_of
from tests.bench.report import Figure

PEERS = 100
MESSAGES = 1_000
PROCESSES = 2
MANY_JOIN_AT_ONCE = {"claims_per_minute_per_invite": 1_000, "claims_per_minute_per_address": 1_000}
"""Every other limit of the broker is as it comes."""


def measure() -> dict[str, Figure]:
    """Found a mesh of 100, then let every peer write 1,000 messages to the others."""
    processes.raise_file_limit(20 * PEERS + 1_000)
    floor_s = _crypto_floor_us() * PEERS * MESSAGES / PROCESSES / 1e6
    with processes.directory() as path, processes.broker(path, limits=MANY_JOIN_AT_ONCE) as broker:
        link = transport.run(_found(directory_of(path, 0), broker.url, PEERS - 1))
        workers = [_start(at * PEERS // PROCESSES, PEERS // PROCESSES) for at in range(PROCESSES)]
        try:
            results, started, spent = _load(workers, path, link, broker)
        finally:
            for worker in workers:
                worker.terminate()
                worker.wait()
    delivered = sum(result["delivered"] for result in results)
    seconds = max(result["finished_at"] for result in results) - started
    cpu = sum(result["cpu_s"] for result in results)
    note = f"{sum(result['repeated'] for result in results)} surfaced twice; {PROCESSES} processes beside the broker"
    per_message = f"CPU for each message: peers {_us(cpu)}, broker {_us(spent)} µs"
    return {
        "e2e_100x1000_s": Figure(
            round(seconds, 1),
            "s",
            round(floor_s, 1),
            f"{delivered / seconds:,.0f} messages/s; {per_message}; floor: seal and open alone",
        ),
        "e2e_delivered": Figure(
            delivered, "messages", note=f"of {PEERS * MESSAGES:,}; {note}; broker CPU {spent:.0f} s, peers {cpu:.0f} s"
        ),
    }


def _us(cpu_s: float) -> str:
    return f"{cpu_s / PEERS / MESSAGES * 1e6:,.0f}"


async def _found(directory: Path, url: str, uses: int) -> str:
    """Create the mesh as peer 0 and return a link for all the others."""
    with Keystore.open(directory) as keystore:
        async with Journal(keystore.journal_path) as journal:
            around = Surroundings(keystore, journal, transport.connect, Runtime())
            await founding.create_mesh(around, url, name="peer0", device="bench", alias="bench")
    async with Peer.open(directory) as peer:
        await peer.wait_connected()
        return await _invite(peer, uses)


async def _invite(peer: Peer, uses: int) -> str:
    link, _ = await peer.invite(uses=uses)
    return link


def _crypto_floor_us() -> float:
    """What sealing and opening one message costs each of as many processes at the same time."""
    command = [sys.executable, "-m", "tests.bench.crypto_floor"]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=processes.ROOT) for _ in range(PROCESSES)
    ]
    return sum(float(one.communicate()[0]) for one in running) / PROCESSES


def _start(first: int, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.bench.peers_process", str(first), str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=processes.ROOT)


def _load(
    workers: "list[subprocess.Popen[str]]", path: Path, link: str, broker: processes.Server
) -> tuple[list[dict[str, Any]], float, float]:
    """What the workers report, when the load began, and what it cost the broker."""
    began = time.monotonic()
    for worker in workers:
        _tell(worker, {"root": str(path), "link": link})
    ids = [one for worker in workers for one in _answer(worker)["ids"]]
    print(f"  {len(ids)} peers joined and connected after {time.monotonic() - began:.0f} s", flush=True)
    before = [processes.cpu_s(worker.pid) for worker in workers]
    broker_before = broker.cpu_s
    started = time.time()
    for worker in workers:
        _tell(worker, {"ids": ids, "messages": MESSAGES})
    results = [_answer(worker) for worker in workers]
    for worker, result, used in zip(workers, results, before, strict=True):
        result["cpu_s"] = processes.cpu_s(worker.pid) - used
    spent = broker.cpu_s - broker_before
    for worker in workers:
        _tell(worker, {})
    return results, started, spent


def _tell(worker: "subprocess.Popen[str]", content: dict[str, Any]) -> None:
    assert worker.stdin is not None
    print(json.dumps(content), file=worker.stdin, flush=True)


def _answer(worker: "subprocess.Popen[str]") -> dict[str, Any]:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError("a process of peers has ended")
    found: dict[str, Any] = json.loads(line)
    return found
