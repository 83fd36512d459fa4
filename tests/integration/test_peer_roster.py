"""Joining, removing, moving, and a broker that forgets: what peers make of the roster over real links."""

import asyncio
import shutil
from pathlib import Path

import pytest

import claudemesh
from claudemesh.crypto.invite import InviteLink, parse_link
from claudemesh.errors import (
    AddressError,
    HandshakeRefused,
    LinkRefused,
    LocalError,
    Refused,
    RosterRefused,
    Unreachable,
)
from claudemesh.peer import Stage
from claudemesh.peer.events import BrokerMoved, LinkDown, PeerAdmitted
from claudemesh.peer.keystore import Keystore
from claudemesh.peer.peer import Peer
from claudemesh.protocol.limits import DAY_MS, REMOVED_RETRY_MS
from tests.brokers import BrokerProcess, serving
from tests.faults.peers import enrol, knows, next_message, opened, shifted


async def join(link: str, directory: Path, name: str = "carol", device: str = "box") -> None:
    await claudemesh.join(link, name=name, device=device, config_dir=directory)


async def test_two_join_by_one_link_while_the_owner_is_offline_and_talk(tmp_path: Path) -> None:
    """Nobody else has to be online to be admitted, to write and to be read."""
    async with serving(tmp_path) as broker:
        await claudemesh.create_mesh(broker.url, name="alice", device="box", config_dir=tmp_path / "alice")
        async with opened(tmp_path / "alice") as alice:
            link, _ = await alice.invite(uses=2)

        await join(link, tmp_path / "bob", "bob")
        await join(link, tmp_path / "carol", "carol")

        async with opened(tmp_path / "bob") as bob, opened(tmp_path / "carol") as carol:
            await knows(bob, "carol.box")
            await bob.send("carol", "hello")
            assert (await next_message(carol)).text == "hello"
            assert bob.resolve("alice") == carol.resolve("alice")  # whom the link named, until she says more herself
            later = await bob.send("alice", "for later")
            await bob.wait_for(later.id, "accepted")
        async with opened(tmp_path / "alice") as alice:
            await knows(alice, "bob.box")
            assert {peer.address for peer in await alice.peers()} == {"alice.box", "bob.box", "carol.box"}
            assert (await next_message(alice)).text == "for later"
            async with opened(tmp_path / "bob") as bob:
                await knows(bob, "alice.box")
                assert bob.resolve("alice").peers == (alice.id,)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        ("spend", "invite_exhausted"),
        ("revoke", "invite_revoked"),
        ("expire", "invite_expired"),
        ("another seed", "no_grant"),
        ("cut", "link_form"),
    ],
)
async def test_a_link_that_cannot_be_used_says_why(tmp_path: Path, spoil: str, code: str) -> None:
    """Each reason has its own plain message, nothing is joined, and no key is left behind."""
    async with serving(tmp_path) as broker:
        await claudemesh.create_mesh(broker.url, name="alice", device="box", config_dir=tmp_path / "alice")
        async with opened(tmp_path / "alice") as alice:
            link, invite = await alice.invite(uses=1, expires_in_ms=1_500 if spoil == "expire" else DAY_MS)
            if spoil == "revoke":
                await alice.uninvite(invite[:8])
        if spoil == "spend":
            await join(link, tmp_path / "bob", "bob")
        if spoil == "expire":
            await asyncio.sleep(1.6)
        if spoil == "another seed":
            parsed = parse_link(link)
            link = InviteLink(parsed.broker_url, parsed.mesh_prefix, bytes(16)).text()
        if spoil == "cut":
            link = link.partition(".mesh")[0][:-3]

        with pytest.raises(LinkRefused) as caught:
            await join(link, tmp_path / "carol")

        assert caught.value.code == code
        if (tmp_path / "carol").exists():
            with Keystore.open(tmp_path / "carol") as keystore:
                assert keystore.meshes == []


async def test_a_link_works_as_a_chat_program_left_it(tmp_path: Path) -> None:
    """Line breaks, quotes and trailing punctuation do not matter."""
    async with serving(tmp_path) as broker:
        await claudemesh.create_mesh(broker.url, name="alice", device="box", config_dir=tmp_path / "alice")
        async with opened(tmp_path / "alice") as alice:
            link, _ = await alice.invite()

        await join(f'  "{link[:30]}\n  {link[30:]}".', tmp_path / "bob", "bob")

        with Keystore.open(tmp_path / "bob") as keystore:
            assert [mesh.alias for mesh in keystore.meshes] == ["mesh"]


async def test_a_link_to_a_mesh_that_its_broker_does_not_hold_is_refused(tmp_path: Path) -> None:
    """Nobody is joined to whatever mesh that broker may hold instead."""
    async with serving(tmp_path) as broker:
        await claudemesh.create_mesh(broker.url, name="alice", device="box", config_dir=tmp_path / "alice")

        link = InviteLink(broker.url, "0" * 32, bytes(16)).text()

        with pytest.raises(Refused, match="unknown_mesh"):
            await join(link, tmp_path / "carol")


async def test_a_device_is_not_joined_twice(tmp_path: Path) -> None:
    """One configuration is one peer of a mesh."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice:
            link, _ = await alice.invite()

        with pytest.raises(LinkRefused, match="already_member"):
            await join(link, homes.bob, "bob")


async def test_a_name_that_cannot_be_addressed_is_refused_before_anything_happens(tmp_path: Path) -> None:
    """No broker is contacted."""
    with pytest.raises(LocalError, match="usage"):
        await claudemesh.create_mesh("ws://127.0.0.1:1/ws", name="a.b", device="box", config_dir=tmp_path / "alice")


async def test_a_mesh_is_not_created_where_nobody_answers(tmp_path: Path) -> None:
    """And nothing of it is left in the configuration."""
    with pytest.raises(Unreachable):
        await claudemesh.create_mesh("ws://127.0.0.1:1/ws", name="alice", device="box", config_dir=tmp_path / "alice")

    with Keystore.open(tmp_path / "alice") as keystore:
        assert keystore.meshes == []


async def test_a_personal_link_makes_its_holder_the_user_that_the_owner_meant(tmp_path: Path) -> None:
    """The identity is in the link: whoever else holds an open link is somebody else."""
    async with serving(tmp_path) as broker:
        await claudemesh.create_mesh(broker.url, name="alice", device="box", config_dir=tmp_path / "alice")
        async with opened(tmp_path / "alice") as alice:
            link, invite = await alice.invite(personal=True, name="bob")
            meant = next(one.for_user for one in alice.invites() if one.id == invite)

            await join(link, tmp_path / "bob", name="")

            async with opened(tmp_path / "bob") as bob:
                await bob.wait_connected()
                assert (bob.user, bob.address) == (meant, "bob.box")


async def test_a_link_names_its_joiner_who_may_choose_another_name(tmp_path: Path) -> None:
    """A further device is called as the first one; the name travels in the link only, and the broker never sees it."""
    async with serving(tmp_path) as broker:
        await claudemesh.create_mesh(broker.url, name="alice", device="box", config_dir=tmp_path / "alice")
        async with opened(tmp_path / "alice") as alice:
            own, _ = await alice.invite(device=True)
            named, _ = await alice.invite(personal=True, name="robert")
            await join(own, tmp_path / "phone", name="", device="phone")
            await join(named, tmp_path / "bob", name="bob")

            async with opened(tmp_path / "phone") as phone, opened(tmp_path / "bob") as bob:
                assert (phone.address, bob.address) == ("alice.phone", "bob.box")


async def test_a_removed_peer_is_out_and_its_mail_is_not_surfaced(tmp_path: Path) -> None:
    """Its link is refused; what it had queued is dropped with it."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice:
            await alice.revoke("bob")
            with pytest.raises(AddressError):
                await alice.send("bob", "are you there?")

            async with opened(homes.bob) as bob:
                async for event in bob.events():
                    if isinstance(event, LinkDown):
                        break
                assert event.code == "revoked"
                await bob.send("alice", "still here")
                await asyncio.sleep(0.5)
            assert await alice.inbox() == []


async def test_a_removed_peer_does_not_keep_knocking(tmp_path: Path) -> None:
    """Refused handshakes are counted by address: what a removed device does must not lock its neighbours out."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.bob) as bob:
            await bob.wait_connected()
            refused = asyncio.create_task(refused_as_removed(bob))
            async with opened(homes.alice) as alice:
                await alice.revoke("bob")
            event = await refused

            with pytest.raises(Refused) as caught:
                await bob.create_channel("#ops")

    assert REMOVED_RETRY_MS / 2 <= event.retry_in_ms <= REMOVED_RETRY_MS
    assert caught.value.code == "removed"


async def refused_as_removed(peer: Peer) -> LinkDown:
    async for event in peer.events():
        if isinstance(event, LinkDown) and event.code == "revoked":
            return event
    raise AssertionError("the peer was closed")


async def test_the_last_owner_cannot_leave_and_a_member_can(tmp_path: Path) -> None:
    """A mesh without an owner could never remove anybody."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            with pytest.raises(RosterRefused, match="last_owner"):
                await alice.leave()
            await bob.leave()

            await until_peers(alice, {"alice.box"})


async def test_a_member_cannot_do_what_the_rules_deny(tmp_path: Path) -> None:
    """Its own replica refuses before the broker is asked."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.bob) as bob:
            with pytest.raises(RosterRefused, match="denied"):
                await bob.invite()
            with pytest.raises(RosterRefused, match="denied"):
                await bob.revoke("alice")


async def test_concurrent_changes_of_the_roster_all_happen(tmp_path: Path) -> None:
    """Whoever loses the compare-and-swap checks, signs and submits again."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            made = await asyncio.gather(
                *(alice.invite() for _ in range(5)), *(bob.invite(device=True) for _ in range(3))
            )

            async with asyncio.timeout(20):
                while not {invite for _, invite in made} <= {one.id for one in alice.invites()}:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)


async def test_a_lost_journal_is_fetched_again(tmp_path: Path) -> None:
    """The roster must then contain what the keystore remembers of it."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        for leftover in homes.bob.glob("state.db*"):
            leftover.unlink()

        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            await bob.wait_connected()
            await alice.send("bob", "still there?")
            assert (await next_message(bob)).text == "still there?"


async def test_a_broker_that_lost_its_tail_gets_it_back(tmp_path: Path) -> None:
    """A restored backup: peers upload the entries, and submit again what nobody is known to have."""
    async with BrokerProcess(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        await broker.terminate()
        shutil.copytree(tmp_path, tmp_path / "backup", ignore=shutil.ignore_patterns("alice", "bob", "backup"))
        await broker.start()
        async with opened(homes.alice) as alice:
            link, _ = await alice.invite()
            await join(link, tmp_path / "carol")
            sent = await alice.send("bob", "accepted, then forgotten")
            await alice.wait_for(sent.id, "accepted", 10)
        await broker.kill()
        for name in ("broker.db", "broker.db-wal", "broker.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)
            if (tmp_path / "backup" / name).exists():
                shutil.copy(tmp_path / "backup" / name, tmp_path / name)
        await broker.start()

        async with opened(homes.alice) as alice, opened(homes.bob) as bob, opened(tmp_path / "carol") as carol:
            await carol.wait_connected()
            assert (await next_message(bob)).text == "accepted, then forgotten"
            await alice.wait_for(sent.id, Stage.DELIVERED, 10)
            assert alice.frozen is None


async def test_a_mesh_moves_with_everybody_and_everything(tmp_path: Path) -> None:
    """Peers that were offline learn of it from the old broker; mail that waited there is not lost."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    async with serving(tmp_path / "old") as old, serving(tmp_path / "new") as new:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", old.url)
        async with opened(homes.alice) as alice:
            waiting = await alice.send("bob", "sent before the move")
            await alice.wait_for(waiting.id, "accepted", 10)

            await alice.move_mesh(new.url)
            await on_broker(alice, new.url)
            await alice.send("bob", "sent after the move")

            async with opened(homes.bob) as bob:
                texts = set()
                async with asyncio.timeout(30):
                    async for message in bob.messages():
                        texts.add(message.text)
                        if len(texts) == 2:
                            break
                await on_broker(bob, new.url)
                assert texts == {"sent before the move", "sent after the move"}
                await bob.send("alice", "here, too")
                assert (await next_message(alice)).text == "here, too"
        with Keystore.open(homes.bob) as keystore:
            assert keystore.meshes[0].broker.url == new.url


async def test_everybody_sees_who_was_admitted_and_where_the_mesh_went(tmp_path: Path) -> None:
    """A leaked link makes a visible peer."""
    (tmp_path / "new").mkdir()
    async with serving(tmp_path) as broker, serving(tmp_path / "new") as new:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            link, invite = await alice.invite()
            seen = asyncio.create_task(collect(bob, 2))
            await bob.wait_connected()

            await join(link, tmp_path / "carol")
            await alice.move_mesh(new.url)

            admitted, moved = await seen
            assert isinstance(admitted, PeerAdmitted)
            assert admitted.invite == invite
            assert moved == BrokerMoved(new.url)


async def test_a_broker_with_another_key_is_not_spoken_to(tmp_path: Path) -> None:
    """Whoever answers at the old address needs the old key."""
    (tmp_path / "other").mkdir()
    async with BrokerProcess(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        port = broker.port
        await broker.kill()
        async with BrokerProcess(tmp_path / "other", port=port), opened(homes.alice) as alice:
            sent = await alice.send("bob", "secret")
            async for event in alice.events():
                if isinstance(event, LinkDown) and event.code == HandshakeRefused("broker_key").code:
                    break

            assert (await alice.status(sent.id)).recipients[0].stage is Stage.QUEUED


async def test_a_peer_whose_clock_is_far_off_says_so(tmp_path: Path) -> None:
    """It is not let in, and nothing that it wrote counts."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice, shifted(-3 * 24 * 60)) as alice:
            async for event in alice.events():
                if isinstance(event, LinkDown):
                    break

            assert event.code == "clock"


async def collect(peer: Peer, count: int) -> list[PeerAdmitted | BrokerMoved]:
    """The first events about admissions and moves."""
    found: list[PeerAdmitted | BrokerMoved] = []
    async with asyncio.timeout(30):
        async for event in peer.events():
            if isinstance(event, PeerAdmitted | BrokerMoved):
                found.append(event)
            if len(found) == count:
                break
    return found


async def on_broker(peer: Peer, url: str) -> None:
    """Wait until a peer is connected to the broker at `url`."""
    async with asyncio.timeout(60):
        while True:
            mesh = await peer.describe_mesh()
            line = peer._parts.uplink._line
            if line is not None and mesh.broker_url == url and line.broker == mesh.broker:
                return
            await asyncio.sleep(0.02)


async def until_peers(peer: Peer, addresses: set[str]) -> None:
    """Wait until the roster has exactly these peers."""
    async with asyncio.timeout(20):
        while {one.address for one in await peer.peers()} != addresses:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.02)
