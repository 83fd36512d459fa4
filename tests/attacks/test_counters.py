"""N06: no pair of session and counter is used for two messages, however often the sender is killed."""

import asyncio
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from claudemesh.protocol import codec, messages
from tests.attacks.clock import PATIENCE_S
from tests.attacks.wire_member import WireMember
from tests.attacks.worlds import World

SENDER = """
import asyncio, sys
from claudemesh.peer import Peer

async def main(directory, recipient):
    async with Peer.open(directory) as peer:
        await peer.wait_connected()
        print("ready", flush=True)
        for number in range(100_000):
            await peer.send(recipient, f"message {number}")
            await asyncio.sleep(0)

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""
KILLS = 6


def run_until_killed(directory: Path, recipient: str, seed: int) -> None:
    """Send as fast as it goes, and end with `kill -9` at a random moment."""
    with subprocess.Popen(
        [sys.executable, "-c", SENDER, str(directory), recipient], stdout=subprocess.PIPE, text=True
    ) as sender:
        assert sender.stdout is not None
        assert sender.stdout.readline() == "ready\n"
        time.sleep(random.Random(seed).uniform(0.0, 0.15))
        sender.send_signal(signal.SIGKILL)


async def test_n06_a_killed_sender_never_uses_a_counter_twice(theatre: World) -> None:
    """N06: what arrives at the recipient is opened, and each (session, n) stands for one message."""
    bob, carol = await theatre.victim("bob"), theatre.member("carol")
    await theatre.announce()
    await bob.stop()
    theatre.victims.clear()

    for seed in range(KILLS):
        await asyncio.wait_for(
            asyncio.to_thread(run_until_killed, bob.directory, carol.id, seed), timeout=4 * PATIENCE_S
        )

    used: dict[tuple[str, int], set[str]] = {}
    for header in headers_to(theatre, carol):
        used.setdefault((header["sess"], header["n"]), set()).add(header["id"])
    sessions = {session for session, _ in used}
    assert {pair: ids for pair, ids in used.items() if len(ids) > 1} == {}
    assert len(sessions) >= KILLS
    assert len(used) > 10 * KILLS


def headers_to(theatre: World, carol: WireMember) -> list[dict[str, Any]]:
    """The signed headers of everything that the broker was ever given for carol."""
    sends = [send for send in theatre.broker.heard(messages.Send) if send.to == carol.id]
    return [carol.read(codec.encode_message(send), theatre.held.attestations[send.att]).header for send in sends]
