"""fanout_1000_ms: one post to 1,000 members that are all online, until the last of them has it."""

import asyncio
import os
import statistics

import uvloop

from claudemesh.crypto import statements
from claudemesh.protocol import codec
from claudemesh.protocol.messages import Post
from claudemesh.protocol.roster import GENERAL
from tests.bench import lanes, load, processes
from tests.bench.bench_mesh import CIPHERTEXT_BYTES, BenchMesh, Speaker
from tests.bench.load import Lane
from tests.bench.raw_link import client_frame
from tests.bench.report import Figure

RECIPIENTS = 1_000
ROUNDS = 15
WARM_UP_ROUNDS = 3
PAUSE_S = 0.2
"""Between two posts: the acknowledgements of the last one are not part of the next."""
NO_LIMITS = {"messages_per_second": 1_000_000, "messages_burst": 1_000_000}


def measure() -> dict[str, Figure]:
    """Posts through the floor and through the broker in turn."""
    processes.raise_file_limit(4 * RECIPIENTS)
    return uvloop.run(_measure())


async def _measure() -> dict[str, Figure]:
    with processes.directory() as path, processes.python_server("tests.bench.floor_server") as floor:
        with processes.broker(path, limits=NO_LIMITS) as broker:
            mesh = await lanes.found_on(broker.url, RECIPIENTS + 1)
            speakers = [mesh.speaker(index) for index in range(RECIPIENTS + 1)]
            to_broker = await lanes.member_lanes(broker.url, mesh, speakers)
            to_floor = await lanes.floor_lanes(floor.url, [speaker.peer for speaker in speakers])
            plain, stored = [], []
            for turn in range(WARM_UP_ROUNDS + ROUNDS):
                for to_server, times in ((to_floor, plain), (to_broker, stored)):
                    took_ms = await _post(to_server, mesh, speakers[0])
                    if turn >= WARM_UP_ROUNDS:
                        times.append(took_ms)
            lanes.close(to_broker + to_floor)
    note = f"median of {ROUNDS} posts, worst {max(stored):.0f} ms; {CIPHERTEXT_BYTES:,} bytes of ciphertext"
    return {"fanout_1000_ms": Figure(statistics.median(stored), "ms", statistics.median(plain), note)}


async def _post(to_server: list[Lane], mesh: BenchMesh, sender: Speaker) -> float:
    """Milliseconds from the post to its last delivery; every other link must get it once."""
    load.clear(to_server)
    message = _make(mesh, sender)
    to_server[0].frames = [(message.id, client_frame(codec.encode_message(message)))]
    seconds = await load.run_fan_out(to_server)
    wrong = [lane for lane in to_server[1:] if lane.delivered != [message.id]]
    if wrong or to_server[0].delivered:
        raise load.MessageLost(f"{len(wrong)} links did not get the post once")
    await asyncio.sleep(PAUSE_S)
    return seconds * 1_000


def _make(mesh: BenchMesh, sender: Speaker) -> Post:
    return Post(
        mesh=mesh.id,
        sender=sender.peer,
        chan=GENERAL,
        ep="ee" * 32,
        id=os.urandom(16).hex(),
        prio="next",
        rs=mesh.roster.seq,
        att=sender.attestation_digest,
        nonce=statements.to_base64url(os.urandom(24)),
        ct=statements.to_base64url(os.urandom(CIPHERTEXT_BYTES)),
    )


if __name__ == "__main__":
    for name, figure in measure().items():
        print(f"{name:18} {figure.value:8.1f} {figure.unit:3} floor {figure.floor:.1f}; {figure.note}")
