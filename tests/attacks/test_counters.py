"""N06: no pair of session and counter is used for two messages, however often the sender is killed."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from claudemesh.crypto import identity
from claudemesh.errors import Unopenable
from claudemesh.protocol import codec, messages
from tests.attacks.hostile_broker import PATIENCE_S
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
    import asyncio

    bob, carol = await theatre.victim("bob"), theatre.member("carol")
    await theatre.announce()
    await bob.stop()
    theatre.victims.clear()

    for seed in range(KILLS):
        await asyncio.wait_for(
            asyncio.to_thread(run_until_killed, bob.directory, carol.id, seed), timeout=4 * PATIENCE_S
        )

    used: dict[tuple[str, int], set[str]] = {}
    for letter in letters_to(theatre, carol):
        header = letter
        used.setdefault((header["sess"], header["n"]), set()).add(header["id"])
    sessions = {session for session, _ in used}
    assert {pair: ids for pair, ids in used.items() if len(ids) > 1} == {}
    assert len(sessions) >= KILLS
    assert len(used) > 10 * KILLS


def letters_to(theatre: World, carol: WireMember) -> list[dict[str, object]]:
    """The signed headers of everything that the broker was ever given for carol."""
    headers = []
    for send in theatre.broker.heard(messages.Send):
        if send.to != carol.id:
            continue
        frame = codec.encode_message(send)
        attestation = theatre.held.attestations[send.att]
        try:
            headers.append(carol.read(frame, attestation).header)
        except Unopenable as error:
            raise AssertionError(identity.open_attestation(attestation).member) from error
    return [msgspec.to_builtins(header) for header in headers]
