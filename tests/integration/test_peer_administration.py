"""Roles, removals, leaked links, replaced keys, recovery: what one peer decides and the others then do."""

import asyncio
from pathlib import Path

import pytest

import claudemesh
from claudemesh import Peer
from claudemesh.errors import AddressError, LinkRefused, RosterRefused, UsageError
from claudemesh.peer.keystore import Keystore
from tests.brokers import serving
from tests.faults.peers import Homes, enrol, knows, next_message, opened


async def gone(peer: Peer, *others: str) -> None:
    """Wait until a peer's roster holds none of these keys as active."""
    async with asyncio.timeout(30):
        while any(peer.view(other) for other in others):  # type: ignore[arg-type]  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def joined(homes: Homes, directory: Path, name: str, device: str = "box", *, own: bool = False) -> str:
    """Have somebody else, or another device of Alice, join by a link of hers; returns its key."""
    async with opened(homes.alice) as alice:
        link, _ = await alice.invite(device=own)
    await claudemesh.join(link, name=name, device=device, config_dir=directory)
    async with opened(homes.alice) as alice, opened(directory) as newcomer:
        await knows(alice, f"{name}.{device}")
        return newcomer.id


async def test_a_peer_is_revoked_while_everybody_else_is_offline(tmp_path: Path) -> None:
    """Who returns learns of it first; who was removed is told so, and the channels have new secrets at once."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        carol = await joined(homes, tmp_path / "carol", "carol")
        async with opened(homes.alice) as alice:
            await alice.send("#general", "before")
            revoked = await alice.revoke("carol", "lost")

            assert revoked.peers == (carol,)
            assert revoked.rotated
        async with opened(homes.bob) as bob:
            await gone(bob, carol)
            with pytest.raises(AddressError):
                await bob.send("carol", "are you there?")
        async with opened(tmp_path / "carol") as thief:
            async with asyncio.timeout(30):
                while not (await thief.describe_mesh()).down.startswith("revoked"):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)


async def test_a_user_is_revoked_with_every_device_and_the_links_that_they_came_by(tmp_path: Path) -> None:
    """One entry for all of them; what they issued is dead, what admitted them is closed on demand."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice:
            link, invite = await alice.invite(uses=5)
        await claudemesh.join(link, name="carol", device="desk", config_dir=tmp_path / "carol")
        async with opened(tmp_path / "carol") as carol:
            phone_link, _ = await carol.invite(device=True)
            _, of_carol = await carol.invite(device=True)
        await claudemesh.join(phone_link, name="carol", device="phone", config_dir=tmp_path / "phone")
        async with opened(homes.alice) as alice, opened(tmp_path / "carol"), opened(tmp_path / "phone"):
            await knows(alice, "carol.desk")
            await knows(alice, "carol.phone")

            revoked = await alice.revoke("carol", close_invites=True)

            assert len(revoked.peers) == 2
            assert set(revoked.invites) == {invite, of_carol}
            assert alice.history()[-2].op == "revoke"
            assert alice.history()[-2].text.startswith("alice.box removed user ")
            with pytest.raises(AddressError):
                alice.resolve("carol")


async def test_own_other_devices_are_revoked_by_the_name_of_the_user(tmp_path: Path) -> None:
    """Never the device that asks."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        laptop = await joined(homes, tmp_path / "laptop", "alice", "laptop", own=True)
        async with opened(homes.alice) as alice:
            revoked = await alice.revoke("alice", "stolen")

            assert revoked.peers == (laptop,)
            assert alice.view(alice.id) is not None


async def test_what_the_rules_forbid_is_refused_in_words(tmp_path: Path) -> None:
    """Who asks learns which rule it is and its own role; nothing was changed."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice:
            board = f"#{(await alice.create_channel('board', 'private')).id}"
        async with opened(homes.bob) as bob:
            await bob.wait_connected()
            before = len(bob.history())
            for attempt, words in (
                (bob.set_role("bob", "owner"), "only an owner changes roles; you are member"),
                (bob.revoke("alice"), "peers of a lower role; you are member"),
                (bob.invite(), "a member links own devices only"),
                (bob.move_mesh(broker.url), "only an owner moves a mesh"),
                (bob.add_to_channel(board, "bob"), "private channel by its maker or an admin"),
            ):
                with pytest.raises(RosterRefused, match=words) as caught:
                    await attempt
                assert caught.value.code == "denied"
            assert len(bob.history()) == before
        async with opened(homes.alice) as alice:
            with pytest.raises(RosterRefused, match="make somebody else an owner first"):
                await alice.set_role("alice", "member")
            with pytest.raises(UsageError, match="left, lost, stolen, removed"):
                await alice.revoke("bob", "because")


async def test_an_admin_invites_and_removes_members_until_it_is_none(tmp_path: Path) -> None:
    """Delegation is one entry, and so is its end."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice:
            assert len(await alice.set_role("bob", "admin")) == 1
            assert await alice.set_role("bob", "admin") == ()
        async with opened(homes.bob) as bob:
            link, _ = await bob.invite()
            await claudemesh.join(link, name="carol", device="box", config_dir=tmp_path / "carol")
            async with opened(tmp_path / "carol") as carol:
                await knows(bob, "carol.box")
                assert (await bob.revoke("carol")).peers == (carol.id,)
        async with opened(homes.alice) as alice:
            await alice.set_role("bob", "member")
        async with opened(homes.bob) as bob:
            with pytest.raises(RosterRefused, match="own devices only"):
                await bob.invite()


async def test_a_leaked_invite_is_closed_with_everybody_it_admitted(tmp_path: Path) -> None:
    """Nobody joins by it any more, and those who did are out; whoever joined by another link stays."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice:
            link, invite = await alice.invite(uses=5)
        for name in ("eve", "mallory"):
            await claudemesh.join(link, name=name, device="box", config_dir=tmp_path / name)
        async with opened(homes.alice) as alice:
            closed = await alice.uninvite(invite[:8], with_members=True)

            assert len(closed.revoked) == 2
            assert closed.kept == ()
            assert closed.invite.state == "revoked"
            assert {view.address for view in await alice.peers()} == {"alice.box", "bob.box"}
            again = await alice.uninvite(invite[:8], with_members=True)
            assert again.revoked == ()
            with pytest.raises(RosterRefused, match="closed already"):
                await alice.uninvite(invite[:8])


async def test_a_replaced_box_key_is_what_everybody_encrypts_to(tmp_path: Path) -> None:
    """The roster sets a floor that no broker can take back, and what was on its way is still read."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice:
            sent = await alice.send("bob", "sealed to the old key")
            await alice.wait_for(sent.id, "accepted")
        with Keystore.open(homes.bob) as keystore:
            stolen = keystore.meshes[0].peer.boxes[0]
        async with opened(homes.bob) as bob:
            await bob.rekey()
            message = await next_message(bob)
            assert message.text == "sealed to the old key"
            await bob.mark_seen(message)
        with Keystore.open(homes.bob) as keystore:
            assert keystore.meshes[0].peer.boxes[0].cs == stolen.cs + 1
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            await alice.send("bob", "sealed to the new key")
            assert (await next_message(bob)).text == "sealed to the new key"
            assert alice.history()[-1].text == f"bob.box replaced its box key: cards below {stolen.cs + 1} are void"


async def test_the_history_says_who_joined_by_which_invite_of_whom(tmp_path: Path) -> None:
    """In words, with the keys and the verified signers beside them."""
    async with serving(tmp_path) as broker:
        homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
        async with opened(homes.alice) as alice:
            await knows(alice, "bob.box")

            genesis, invite, admission = alice.history()

            assert genesis.text == "alice.box created the mesh, with a recovery key"
            assert invite.text == f"alice.box made invite {invite.invite[:8]}: for anybody, as member, once"
            assert admission.text == f"bob.box joined by invite {invite.invite[:8]} of alice.box"
            assert admission.invite == invite.invite
            assert set(admission.signers) > {invite.invite, admission.who}
            assert (admission.who_address, admission.by_address) == ("bob.box", "")
            assert alice.history(2) == [admission]
            assert admission.at >= genesis.at


async def test_printed_words_throw_out_the_thief_the_admins_and_the_invites(tmp_path: Path) -> None:
    """On a machine that has no trace of the mesh, with nobody else online."""
    async with serving(tmp_path) as broker:
        founded = await claudemesh.create_mesh(broker.url, name="alice", device="box", config_dir=tmp_path / "alice")
        assert founded.recovery is not None
        homes = Homes(tmp_path / "alice", tmp_path / "bob")
        bob = await joined(homes, tmp_path / "bob", "bob")
        adam = await joined(homes, tmp_path / "adam", "adam")
        async with opened(homes.alice) as thief:
            await thief.set_role("adam", "admin")
            link, invite = await thief.invite(uses=9)
            stolen = thief.id

        recovered = await claudemesh.recover(
            founded.recovery.lower().replace("-", " "),
            broker_url=broker.url,
            mesh_id=founded.mesh[:32],
            name="alice",
            device="new",
            config_dir=tmp_path / "new",
        )

        assert set(recovered.removed) == {stolen, adam}
        assert recovered.invites == (invite,)
        assert recovered.former is None
        with pytest.raises(LinkRefused, match="invite_revoked"):
            await claudemesh.join(link, name="eve", device="box", config_dir=tmp_path / "eve")
        async with opened(tmp_path / "new") as alice, opened(homes.bob) as member:
            await knows(alice, "bob.box")
            await knows(member, alice.id[:16])  # another user says to be alice: nobody takes that for granted
            assert [(view.id, view.role) for view in await alice.peers()] == [(bob, "member"), (alice.id, "owner")]
            await member.send(alice.id, "is it you?")
            assert (await next_message(alice)).text == "is it you?"


async def test_a_device_that_is_in_the_mesh_recovers_it_under_new_keys(tmp_path: Path) -> None:
    """Its journal and its name stay; the peer that it was is out like every other owner."""
    async with serving(tmp_path) as broker:
        founded = await claudemesh.create_mesh(broker.url, name="alice", device="box", config_dir=tmp_path / "alice")
        homes = Homes(tmp_path / "alice", tmp_path / "bob")
        await joined(homes, tmp_path / "bob", "bob")
        async with opened(homes.alice) as alice:
            former = alice.id

        recovered = await claudemesh.recover(founded.recovery or "", config_dir=homes.alice)

        assert recovered.removed == (former,)
        async with opened(homes.alice) as alice, opened(homes.bob) as bob:
            assert alice.id != former
            await knows(alice, "bob.box")
            await alice.send("bob", "new keys, same person")
            message = await next_message(bob)
            assert (message.text, message.sender_id) == ("new keys, same person", alice.id)


@pytest.mark.parametrize("words", ["", "AAAA-BBBB", "0000-0000-0000-0000-0000-0000-0000-0000", "ÄÖ" * 20])
async def test_words_that_cannot_be_a_key_change_nothing(tmp_path: Path, words: str) -> None:
    """A slip is noticed before anybody is asked."""
    with pytest.raises(UsageError, match="recovery key"):
        await claudemesh.recover(words, broker_url="ws://127.0.0.1:9/ws", mesh_id="0" * 64, config_dir=tmp_path)


async def test_words_of_another_mesh_are_refused(tmp_path: Path) -> None:
    """By the broker, and by every peer if it did not."""
    async with serving(tmp_path) as broker:
        one = await claudemesh.create_mesh(broker.url, name="a", device="b", config_dir=tmp_path / "one")
        other = await claudemesh.create_mesh(broker.url, name="a", device="b", config_dir=tmp_path / "two")

        with pytest.raises(RosterRefused, match="not the recovery key of this mesh"):
            await claudemesh.recover(
                one.recovery or "", broker_url=broker.url, mesh_id=other.mesh, name="a", device="b", config_dir=tmp_path
            )

        async with opened(tmp_path / "two") as owner:
            assert len(owner.history()) == 1
