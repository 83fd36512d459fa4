"""The main job on real input, end to end: `make demo`.

Two people join a mesh through a link while its owner is away; one sends a letter, read from a file, to
the other, who is offline; the broker is killed before it can deliver; the letter arrives once, and
everybody who handled it has signed for it. Then a channel, a revoked device and a newcomer (`channels.py`).
Nothing is simulated: real processes, sockets and files.
"""

import base64
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from channels import second_act
from stage import Broker, Failed, Machine, expect, people, say

LETTER = Path(__file__).parent / "letter.txt"


def main() -> int:
    # A Unix socket lives in each configuration directory, and its path has to be short.
    with tempfile.TemporaryDirectory(prefix="mesh-") as directory:
        broker = Broker(Path(directory) / "broker")
        try:
            with people(Path(directory), "alice", "bob", "carol") as (alice, bob, carol):
                join_while_the_owner_is_away(broker, alice, bob, carol)
                letter = LETTER.read_text(encoding="utf-8")
                message_id = send_to_somebody_offline(bob, carol, letter)
                kill_the_broker(broker)
                deliver_exactly_once(bob, carol, message_id, letter)
                show_the_timeline(carol, message_id)
                search_the_broker(broker, message_id, letter)
            second_act(Path(directory))
        except Failed as error:
            say(f"\nThe demonstration failed: {error}")
            return 1
        finally:
            broker.kill()
    say("\nDone. Next: README.md, or  claudemesh up  to try it yourself.")
    return 0


def join_while_the_owner_is_away(broker: Broker, alice: Machine, bob: Machine, carol: Machine) -> None:
    say(f"1. A broker on {broker.url}; alice founds a mesh and makes one link for two people.")
    broker.start()
    alice.ask("mesh", "create", "acme", "--broker", broker.url, "--name", "alice", "--device", "laptop")
    link = alice.ask("invite", "--uses", "2")["link"]
    alice.stop_daemon()
    say("   Her daemon is stopped. bob and carol join by the link, each from a machine of their own:")
    for machine in (bob, carol):
        joined = machine.ask("join", "-", "--name", machine.name, "--device", "desktop", stdin=link)
        expect(f"{machine.name} is {joined['mesh']['address']}, one of {joined['mesh']['members']} peers", True)
    addresses = {one["address"] for one in carol.ask("peers")["peers"]}
    expect(f"carol knows bob by name, from bob himself: {sorted(addresses)}", "bob.desktop" in addresses)


def send_to_somebody_offline(bob: Machine, carol: Machine, letter: str) -> str:
    say(f"\n2. bob goes offline. carol sends him {LETTER.name}, {len(letter.encode())} bytes:")
    bob.stop_daemon()
    sent = carol.ask("send", "bob", "-", "--wait", "accepted", stdin=letter)
    stage = sent["to"][0]["stage"]
    expect(f"the receipt says `{stage}`, not more: the broker has it, bob does not", stage == "accepted")
    return str(sent["id"])


def kill_the_broker(broker: Broker) -> None:
    say("\n3. kill -9 of the broker between `accepted` and `delivered`, then a restart.")
    broker.kill()
    broker.start()
    expect("the broker is ready again on the same file", True)


def deliver_exactly_once(bob: Machine, carol: Machine, message_id: str, letter: str) -> None:
    say("\n4. bob comes back.")
    bob.ask("daemon", "start")
    carol.ask("send", "bob", "are you there?", "--wait", "delivered", "--timeout", "30s")
    mine = [one for one in bob.inbox("--all") if one["id"] == message_id]
    expect("the letter is in his inbox exactly once", len(mine) == 1)
    expect("it is the file, byte for byte", mine[0]["text"] == letter)
    bob.stop_daemon()
    bob.ask("daemon", "start")
    carol.ask("send", "bob", "and after your restart?", "--wait", "delivered", "--timeout", "30s")
    again = [one for one in bob.inbox("--all") if one["id"] == message_id]
    expect("after a restart of his daemon it is still there once", len(again) == 1)


def show_the_timeline(carol: Machine, message_id: str) -> None:
    say("\n5. The timeline: each stage with the key that signed it.\n")
    say(carol.run("message", message_id))
    steps = carol.ask("message", message_id)["steps"]
    stages = [step["stage"] for step in steps]
    expect("queued, accepted, delivered, in this order and no other", stages == ["queued", "accepted", "delivered"])
    signers = {step["stage"]: step["witness"] for step in steps}
    expect(
        "accepted is the broker's word, delivered is bob's",
        (signers["accepted"], signers["delivered"]) == ("broker", "peer"),
    )


def search_the_broker(broker: Broker, message_id: str, letter: str) -> None:
    say("\n6. Everything the broker has, as it lies on its disk:\n")
    for name, count, rows in broker.tables():
        say(f"   {name} ({count} rows)")
        for row in rows:
            say(f"      {_shortened(row)}")
    raw = broker.bytes_at_rest()
    say(f"\n   Searching {len(raw):,} bytes of database and logs:")
    for what, needle in _needles(letter):
        expect(f"no trace of {what}", needle not in raw)
    mesh_row = next(rows[0] for name, _, rows in broker.tables() if name == "meshes")
    planted = next(value for value in mesh_row if isinstance(value, str) and len(value) == 64).encode()
    expect("the search itself works: it finds the mesh id, which the broker must know", planted in raw)


def _needles(letter: str) -> Iterator[tuple[str, bytes]]:
    """What must not be found: the letter by lines, in the encodings that might hide it, and the names."""
    for number, line in enumerate(letter.splitlines(), 1):
        yield f"line {number} of the letter", line.encode()
    for offset in range(3):
        # Base64 of a text depends on where it starts; three offsets cover every place.
        inner = base64.b64encode(letter.encode()[offset : offset + 60])[4:-4]
        yield f"the letter in base64, offset {offset}", inner
    for name in ("alice", "bob.desktop", "carol", "acme", "desktop"):
        yield f"the name {name!r}", name.encode()


def _shortened(row: tuple[object, ...]) -> str:
    cells = (f"<{len(cell)} bytes>" if isinstance(cell, bytes) else str(cell) for cell in row)
    text = "  ".join(cell if len(cell) <= 24 else f"{cell[:20]}…" for cell in cells)
    return text if len(text) <= 150 else f"{text[:149]}…"


if __name__ == "__main__":
    sys.exit(main())
