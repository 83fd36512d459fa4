"""Real peers in trouble: rotations that race or die, devices that are stolen or copied, too many channels."""

import asyncio
import shutil
import signal
import sys
import time

import pytest

from claudemesh.broker.app import Broker
from claudemesh.broker.config import Settings
from claudemesh.broker.policy import Limits
from claudemesh.listen import Listen
from claudemesh.peer.events import CloneSuspected
from claudemesh.protocol import messages
from claudemesh.protocol.limits import CHANNELS_PER_PEER, DAY_MS, MAX_ENTRIES_PER_FRAME
from claudemesh.protocol.messages import Post, PutEpoch
from tests.attacks import wire_channels
from tests.attacks.channel_attacks import Stage, holds
from tests.attacks.hostile_link import HostileLink
from tests.attacks.wire_mesh import WireMesh
from tests.attacks.worlds import Victim, World

_SPEAKER = """
import asyncio, sys
from claudemesh import Peer

async def main():
    async with Peer.open(sys.argv[1]) as peer:
        await peer.wait_connected()
        await peer.send("#general", sys.argv[2])
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a32_a_stolen_device_does_not_open_what_a_channel_said_long_ago(theatre: World) -> None:
    """A32: after its box keys have rotated and its history is over, no key and no secret of it opens the recording."""
    stage = await Stage.set(theatre)
    bob = await stage.victim("bob")
    epoch = await stage.general(bob)
    recorded = wire_channels.post(theatre.owner, epoch, "old secret")
    await stage.hand_over(recorded, bob)
    await theatre.until(lambda: "old secret" in bob.texts, "bob reads it")
    opened_before = _opened_with_device(bob, epoch, recorded.frame)

    for number in range(2, 8):
        theatre.clock.advance(8 * DAY_MS)
        bob = await bob.restarted()
        await bob.rotated_to(number)
    await theatre.until(lambda: not holds(bob, epoch.id), "bob forgets the epoch")
    opened_after = _opened_with_device(bob, epoch, recorded.frame)
    await bob.stop()

    disk = b"".join(one.read_bytes() for one in bob.directory.iterdir() if one.is_file())
    await bob.start()
    assert opened_before
    assert not opened_after
    assert epoch.secret not in disk
    assert b"old secret" not in disk


async def test_a34_rotations_that_race_are_both_read_and_converge(theatre: World) -> None:
    """A34: neither saw the other's epoch; both posts are read, and everybody's next one is under the same epoch."""
    stage = await Stage.set(theatre)
    bob, carol = await stage.victim("bob"), await stage.victim("carol")
    stage.carrier.holds = {Post, PutEpoch}
    blind = [await stage.says(one, f"from {one.name}") for one in (bob, carol)]
    stage.carrier.holds = set()
    for one in (bob, carol):
        await stage.carrier.deliver(one.id)
    await theatre.until(lambda: "from bob" in carol.texts and "from carol" in bob.texts, "both read both")

    converged = [await stage.says(one, f"again from {one.name}") for one in (bob, carol)]

    await theatre.until(lambda: "again from bob" in carol.texts, "carol reads on")
    assert blind[0].ep != blind[1].ep
    assert {post.ep for post in converged} == {min(post.ep for post in blind)}
    assert bob.codes | carol.codes == set()


@pytest.mark.parametrize("lead", [1, 2], ids=["one ahead", "two ahead"])
async def test_n09_a_clone_that_is_ahead_is_noticed(theatre: World, lead: int) -> None:
    """N09: the original finds a card of its own that it never issued, and says so."""
    bob, clone = await _cloned(theatre)
    for number in range(2, 2 + lead):
        theatre.clock.advance(8 * DAY_MS)
        await _rotate_and_publish(theatre, clone, number)

    await bob.start()
    await theatre.until(lambda: _warnings(bob), "bob is warned")

    assert clone.id == bob.id
    assert clone.kid != bob.kid


async def test_n09_a_clone_that_has_come_as_far_is_noticed(theatre: World) -> None:
    """N09: two cards of one number, each with its own key; the original lost its link when it published its card."""
    bob, clone = await _cloned(theatre)
    theatre.clock.advance(8 * DAY_MS)
    theatre.broker.lies.incoming = lambda _link, frame: isinstance(frame, messages.PutCard)
    await bob.start()
    await bob.rotated_to(2)
    await bob.stop()
    theatre.broker.lies.incoming = lambda _link, _frame: False
    await _rotate_and_publish(theatre, clone, 2)

    await bob.start()
    await theatre.until(lambda: _warnings(bob), "bob is warned")

    assert {warning.number for warning in _warnings(bob)} == {2}


async def test_a_rotator_that_is_killed_before_its_epoch_is_stored_sends_its_post_once(theatre: World) -> None:
    """kill -9 between the journal and the broker: others go on, it publishes or rotates again, and all converge."""
    stage = await Stage.set(theatre)
    bob, carol = await stage.victim("bob"), await stage.victim("carol")
    await bob.stop()
    stage.carrier.swallows = {PutEpoch}
    before = len(theatre.broker.heard(PutEpoch))
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _SPEAKER, str(bob.directory), "half-way")
    await theatre.until(lambda: len(theatre.broker.heard(PutEpoch)) > before, "bob has journaled and sent an epoch")
    process.send_signal(signal.SIGKILL)
    await process.wait()
    stage.carrier.swallows = set()
    (unpublished,) = bob.rows("SELECT epoch FROM epochs WHERE publication IS NOT NULL")[0]
    meanwhile = await stage.says(carol, "meanwhile")

    await bob.start()
    await theatre.until(lambda: "half-way" in carol.texts and "meanwhile" in bob.texts, "both are read")
    converged = {(await stage.says(one, f"again from {one.name}")).ep for one in (bob, carol)}

    assert carol.texts.count("half-way") == 1
    assert meanwhile.ep != unpublished
    assert len(converged) == 1


async def test_a_broker_that_refuses_every_epoch_does_not_make_a_peer_spin(theatre: World) -> None:
    """It tries again once in a second at most, direct messages pass, and the post is sent when the broker relents."""
    stage = await Stage.set(theatre)
    bob = await stage.victim("bob")
    carry = theatre.broker.lies.incoming

    async def refuse(link: HostileLink, frame: messages.PeerMessage) -> bool:
        if isinstance(frame, PutEpoch):
            await link.emit(messages.Refused(code="stale_roster", rid=frame.rid))
            return True
        return bool(await carry(link, frame))  # type: ignore[misc]

    theatre.broker.lies.incoming = refuse
    await bob.peer.send("#general", "at last")
    await theatre.until(lambda: theatre.broker.heard(PutEpoch), "bob tries")
    began = time.monotonic()
    await asyncio.sleep(2.5)
    attempts, passed_s = len(theatre.broker.heard(PutEpoch)), time.monotonic() - began
    await theatre.probe(bob)
    theatre.broker.lies.incoming = carry
    await stage.carrier.posted(bob.id)

    assert attempts <= 2 + passed_s


async def test_one_member_cannot_make_ten_thousand_channels() -> None:
    """Expected `chan_limit` at the 257th, by every verifier; the log stays short, and the others go on."""
    settings = Settings(listen=Listen("127.0.0.1", 0), limits=Limits(appends_per_minute=100_000))
    async with Broker(settings) as broker:
        mesh = await WireMesh(f"ws://127.0.0.1:{broker.port}/ws").found()
        mallory = await mesh.member("mallory")
        refusals = []
        async with mallory.dial(mesh.url) as link:
            for start in range(0, 10_000, MAX_ENTRIES_PER_FRAME):
                batch = []
                for number in range(start, min(start + MAX_ENTRIES_PER_FRAME, CHANNELS_PER_PEER)):
                    batch.append(mallory.entry("chan", chan=f"{number + 16:032x}", kind="open"))
                    mallory.follow(batch[-1])
                over = mallory.entry("chan", chan=f"{start + 20_000:032x}", kind="open")
                refusals.append(await link.append(*(batch or [over])))
        async with mesh.owner.dial(mesh.url) as link:
            others = await link.append(mesh.owner.entry("chan", chan="77" * 16, kind="open"))

        assert others == ""
        assert set(refusals[:2]) == {""}
        assert all(refusal.split()[0] == "invalid" and "chan_limit" in refusal for refusal in refusals[2:])
        assert mesh.owner.roster.seq == 2 + CHANNELS_PER_PEER


async def _cloned(world: World) -> tuple[Victim, Victim]:
    """Bob, and a copy of his configuration directory on another machine; neither runs."""
    bob = await world.victim("bob")
    await world.until(lambda: bob.id in world.held.cards, "bob publishes his card")
    await bob.stop()
    shutil.copytree(bob.directory, world.directory / "clone")
    return bob, Victim("clone", world.directory / "clone", world.runtime)


async def _rotate_and_publish(world: World, clone: Victim, number: int) -> None:
    await clone.start()
    await clone.rotated_to(number)
    await world.until(lambda: clone.kid in world.held.cards[clone.id].b, "the clone publishes its card")
    await clone.stop()


def _warnings(victim: Victim) -> list[CloneSuspected]:
    return [event for event in victim.events if isinstance(event, CloneSuspected)]


def _opened_with_device(bob: Victim, epoch: wire_channels.WireEpoch, frame: messages.Post) -> bool:
    """Whether anything on bob's device opens a recorded post: a secret in its journal, or its slot by any box key."""
    secrets = [bytes(secret) for (secret,) in bob.rows("SELECT secret FROM epochs")]
    for box in bob.keys["peer"]["boxes"]:
        found = wire_channels.secret_for(
            epoch.made.statement, epoch.slots[bob.id], box["box"], bytes.fromhex(box["box_sk"])
        )
        secrets += [found] if found is not None else []
    return any(wire_channels.opens(frame, epoch.attestation, secret) for secret in secrets)
