"""Names travel encrypted, are pinned to keys, and are never taken over in silence."""

import asyncio
from pathlib import Path

import pytest

import claudemesh
from claudemesh.errors import AddressError
from claudemesh.peer import Peer
from claudemesh.peer.events import NameAmbiguous
from tests.brokers import serving
from tests.faults.peers import enrol, knows, next_message, opened


async def test_a_new_name_reaches_the_others(tmp_path: Path) -> None:
    """Also those who were offline when it was chosen."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.bob) as bob:
            await bob.rename("robert", "desk")
            await bob.wait_connected()
        async with opened(homes.bob), opened(homes.alice) as alice:
            await knows(alice, "robert.desk")
            sent = await alice.send("robert", "hello")

            assert (await alice.wait_for(sent.id, "delivered", 20)).recipients[0].address == "robert.desk"


async def test_a_second_user_of_a_name_makes_it_address_nobody(tmp_path: Path) -> None:
    """Whoever has a link can call himself Bob. Until a person decides, only keys address the two."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            link, _ = await alice.invite()
            await claudemesh.join(link, name="bob", device="elsewhere", config_dir=tmp_path / "mallory")
            async with opened(tmp_path / "mallory") as mallory:
                async for event in alice.events():
                    if isinstance(event, NameAmbiguous):
                        break

                for address in ("bob", "bob.box", "bob.elsewhere"):
                    with pytest.raises(AddressError, match="ambiguous"):
                        await alice.send(address, "for the real one")
                await alice.send(bob.id[:8], "by key")
                assert (await next_message(bob)).text == "by key"
                await alice.reject_name("bob", mallory.user)
                assert alice.resolve("bob").peers == (bob.id,)

        async with opened(homes.alice) as alice:
            assert alice.resolve("bob").peers == (bob.id,)


async def test_a_removed_impostor_gives_the_name_back(tmp_path: Path) -> None:
    """And nobody inherits a name: when the real one leaves, a later user of it is not addressed by it until a person
    has compared the digits and says so."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            impostors = []
            for number in range(2):
                link, _ = await alice.invite()
                home = tmp_path / f"mallory-{number}"
                await claudemesh.join(link, name="bob", device="elsewhere", config_dir=home)
                async with opened(home) as mallory:
                    impostors.append(mallory.id)
                    await ambiguous(alice, "bob")
                if number == 0:
                    await alice.revoke(mallory.id[:8])
                    assert alice.resolve("bob").peers == (bob.id,)
            await alice.revoke(bob.id[:8])

            with pytest.raises(AddressError, match="ambiguous"):
                alice.resolve("bob")
            assert alice.resolve(impostors[1][:8]).peers == (impostors[1],)
            assert await alice.confirm_name(impostors[1]) == "bob"
            assert alice.resolve("bob").peers == (impostors[1],)
        async with opened(homes.alice) as alice:
            assert alice.resolve("bob.elsewhere").peers == (impostors[1],)


async def ambiguous(peer: Peer, name: str) -> None:
    """Wait until a peer knows a second user of a name."""
    for _ in range(1_000):
        try:
            peer.resolve(name)
        except AddressError:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{name} stays unambiguous")


async def test_the_broker_learns_no_name(tmp_path: Path) -> None:
    """Neither its database nor its log holds what peers call themselves."""
    async with serving(tmp_path) as broker:
        await claudemesh.create_mesh(broker.url, name="Xanthippe", device="Bucephalus", config_dir=tmp_path / "alice")
        async with opened(tmp_path / "alice") as alice:
            link, _ = await alice.invite()
            await claudemesh.join(link, name="Zarathustra", device="Rosinante", config_dir=tmp_path / "bob")
            async with opened(tmp_path / "bob") as bob:
                await knows(alice, "Zarathustra.Rosinante")
                await knows(bob, "Xanthippe.Bucephalus")

    stored = everything_stored(tmp_path)
    assert len(stored) > 10_000
    for name in (b"Xanthippe", b"Bucephalus", b"Zarathustra", b"Rosinante"):
        assert name not in stored


def everything_stored(directory: Path) -> bytes:
    """The broker's database, write-ahead log and event log."""
    return b"".join(path.read_bytes() for path in directory.glob("broker.*"))
