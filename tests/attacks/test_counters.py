"""N06: no pair of session and counter is used for two messages, however often the sender is killed."""

import asyncio
import random
import signal
import sys
from pathlib import Path
from typing import Any

from claudemesh.protocol import codec, messages
from tests.attacks.clock import eventually
from tests.attacks.wire_member import WireMember
from tests.attacks.worlds import World

SENDER = """
import asyncio, sys
from claudemesh.peer import Peer

async def main(directory, recipient):
    async with Peer.open(directory) as peer:
        await peer.wait_connected()
        for number in range(100_000):
            await peer.send(recipient, f"message {number}")
            await asyncio.sleep(0)

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""
KILLS = 6
MESSAGES_BEFORE_KILL = (10, 60)


async def send_until_killed(theatre: World, directory: Path, recipient: str, seed: int) -> None:
    """Send as fast as it goes, and end with `kill -9` at a random moment after some messages are on their way."""
    chance = random.Random(seed)
    enough = len(sent_ids(theatre)) + chance.randint(*MESSAGES_BEFORE_KILL)
    sender = await asyncio.create_subprocess_exec(sys.executable, "-c", SENDER, str(directory), recipient)
    try:
        await eventually(lambda: len(sent_ids(theatre)) >= enough, "messages are sent", 40.0)
        await asyncio.sleep(chance.uniform(0.0, 0.1))
    finally:
        sender.send_signal(signal.SIGKILL)
        await sender.wait()


async def test_n06_a_killed_sender_never_uses_a_counter_twice(theatre: World) -> None:
    """N06: what arrives at the recipient is opened, and each (session, n) stands for one message."""
    bob, carol = await theatre.victim("bob"), theatre.member("carol")
    await theatre.announce()
    await bob.stop()
    theatre.victims.clear()

    for seed in range(KILLS):
        await send_until_killed(theatre, bob.directory, carol.id, seed)

    used: dict[tuple[str, int], set[str]] = {}
    for header in headers_to(theatre, carol):
        used.setdefault((header["sess"], header["n"]), set()).add(header["id"])
    sessions = {session for session, _ in used}
    assert {pair: ids for pair, ids in used.items() if len(ids) > 1} == {}
    assert len(sessions) >= KILLS // 2  # what a killed process left sealed is sent again, in its old session
    assert len(used) >= MESSAGES_BEFORE_KILL[0] * KILLS


def sent_ids(theatre: World) -> set[str]:
    """The messages that the broker was ever given, each once however often it was sent."""
    return {send.id for send in theatre.broker.heard(messages.Send)}


def headers_to(theatre: World, carol: WireMember) -> list[dict[str, Any]]:
    """The signed headers of everything that the broker was ever given for carol."""
    sends = [send for send in theatre.broker.heard(messages.Send) if send.to == carol.id]
    return [carol.read(codec.encode_message(send), theatre.held.attestations[send.att]).header for send in sends]
