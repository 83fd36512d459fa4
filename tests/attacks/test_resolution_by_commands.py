"""A mesh that a broker forked, resolved on the command line: frozen, both heads shown, one trusted, the proof kept."""

import asyncio
import json
from pathlib import Path
from typing import Any

from claudemesh.types import PeerId
from tests.attacks.wire_member import WireMember
from tests.attacks.worlds import World
from tests.processes import Machine, machine


async def test_a_forked_mesh_is_resolved_by_two_commands(theatre: World, tmp_path: Path) -> None:
    """`mesh heads` says who is on which branch and whom to ask; `mesh trust` lets sending go on."""
    with machine(tmp_path, "bob") as bob:
        link = await theatre.invite()
        await run(bob, "join", "-", "--name", "bob", "--device", "box", stdin=link.text())
        theatre._owner_follows()
        peer = PeerId(keys_of(bob)["sign"])
        dora, insider = theatre.member("dora"), theatre.member("insider")
        await theatre.broker.announce(theatre.held)
        other = theatre.held.main.copy()
        other.append(insider.entry_on(other.roster, "chan", chan="ab" * 16, kind="group"))
        await theatre.extend(theatre.owner.entry("revoke", who=insider.id, why="stolen"))
        await reaches(bob, theatre.held.main.seq)

        await write(theatre, theatre.owner, peer, bob, "I removed the insider")
        dora.follow(*other.entries[dora.roster.seq + 1 :])
        dora.take_head(other.signed_head(theatre.broker.key, theatre.clock()))
        await write(theatre, dora, peer, bob, "from the other branch")
        await frozen(bob)

        refused = await asyncio.to_thread(bob.fails, "send", theatre.owner.id[:16], "hello")
        heads = await run(bob, "mesh", "heads")
        words = (await asyncio.to_thread(bob.run, "mesh", "heads")).stdout
        unknown = await asyncio.to_thread(bob.fails, "mesh", "trust", "00" * 8, "--yes")
        trusted = await run(bob, "mesh", "trust", theatre.held.main.roster.head[:16], "--yes")
        after = await run(bob, "mesh", "heads")
        sent = await run(bob, "send", theatre.owner.id[:16], "we go on")

    ours, theirs = heads["branches"]
    assert (refused["code"], refused["exit_code"], refused["took_effect"]) == ("frozen", 7, "nothing")
    assert heads["frozen"] == "fork"
    assert (ours["own"], ours["head"], ours["suggested"]) == (True, theatre.held.main.roster.head, True)
    assert (theirs["own"], theirs["head"], theirs["suggested"]) == (False, other.roster.head, False)
    assert theirs["followers"] == [dora.id[:16]]
    assert f"claudemesh mesh trust {ours['head'][:16]}" in words
    assert unknown["exit_code"] == 4
    assert (trusted["own"], trusted["frozen"]) == (True, "")
    (decision,) = after["decisions"]
    assert (after["frozen"], decision["code"], decision["trusted"]) == ("", "fork", ours["head"])
    assert len({json.loads(one["b"])["head"] for one in decision["statements"]}) == 2
    assert {one["k"] for one in decision["statements"]} == {theatre.broker.key.public}
    assert sent["stage"] in ("queued", "accepted")


async def run(one: Machine, *command: str, stdin: str = "") -> Any:
    """A command that must succeed, while the hostile broker goes on in this process."""
    return await asyncio.to_thread(one.ok, *command, stdin=stdin)


async def write(world: World, author: WireMember, peer: PeerId, recipient: Machine, text: str) -> None:
    """Push a message of a member that is played by hand."""
    letter = author.write(peer, keys_of(recipient)["boxes"][0]["box"], text)
    await world.broker.push(peer, letter.frame, attestations=[letter.attestation])


async def reaches(one: Machine, seq: int) -> None:
    """Wait until the daemon's roster is that long."""
    while (await run(one, "mesh", "heads"))["seq"] < seq:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.1)


async def frozen(one: Machine) -> None:
    """Wait until the daemon has stopped to send."""
    while not (await run(one, "mesh", "list"))["meshes"][0]["frozen"]:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.1)


def keys_of(one: Machine) -> dict[str, Any]:
    """What a machine's configuration holds of its peer."""
    config: dict[str, Any] = json.loads((one.config_dir / "config.json").read_text())
    peer: dict[str, Any] = config["meshes"][0]["peer"]
    return peer
