"""Channels and groups of real peers over a real broker: who reads what, and what it is called."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from claudemesh.errors import AddressError, RosterRefused
from claudemesh.peer import Peer, Stage
from claudemesh.protocol.delivery import Witness
from claudemesh.protocol.roster import EVERYONE
from claudemesh.types import ChannelId
from tests.teams import eventually, knows_channel, silent, take, team


def epochs_of(peer: Peer, scope: str = EVERYONE) -> set[str]:
    """The epochs of a scope that a peer holds."""
    return {held.id for held in peer._parts.channels.epochs.book.of_scope(scope)}


async def in_roster(peer: Peer, other: Peer) -> None:
    """Wait until a peer's roster is as long as another's."""
    wanted = other._parts.membership.roster.seq
    await eventually(lambda: peer._parts.membership.roster.seq >= wanted, "the roster")


async def make_without_asking(peer: Peer, name: str) -> ChannelId:
    """What a program does that has no scruples about names."""
    parts, channel = peer._parts, ChannelId("c0" * 16)
    await parts.channels.directory.propose(channel, name, "")
    keyring, line = parts.keyring, await parts.uplink.line()
    await parts.membership.append(line, "chan", [keyring.sign], by=keyring.member, chan=channel, kind="open")
    parts.channels.directory.announce()
    return channel


async def test_everybody_reads_general_from_the_start(tmp_path: Path) -> None:
    """`#general` needs no making, no joining and no name; its post is confirmed by whoever got it."""
    async with team(tmp_path, "alice", "bob", "carol") as (_, (alice, bob, carol)):
        sent = await alice.send("#general", "good morning")
        at_bob, at_carol = (await take(bob, 1))[0], (await take(carol, 1))[0]
        await alice.wait_for(sent.id, "delivered", 10)

        assert [at_bob.text, at_carol.text] == ["good morning"] * 2
        assert (at_bob.channel, at_bob.sender, at_bob.is_stale, at_bob.gap) == ("#general", "alice.box", False, 0)
        status = await alice.status(sent.id)
        assert (status.recipients[0].address, status.recipients[0].stage) == ("#general", Stage.ACCEPTED)


async def test_whoever_misses_a_post_because_its_mailbox_is_full_is_named_to_its_sender(tmp_path: Path) -> None:
    """The channel's own stage is `accepted`; that of the absent member is not, and the broker has signed why."""
    async with team(tmp_path, "alice", "bob", "carol", limits={"mailbox_rows": 8}) as (made, (alice, bob, carol)):
        absent = bob.id
        await made.close("bob")
        sent = []
        for number in range(10):
            sent.append(await alice.send("#general", f"number {number}"))
            await take(carol, 1)

        async def missed() -> list[Any]:
            status = await alice.status(sent[-1].id)
            return [one for one in status.recipients if one.peer == absent]

        async with asyncio.timeout(10):
            while not await missed():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        status, [at_bob] = await alice.status(sent[-1].id), await missed()
        first = await alice.status(sent[0].id)

        assert status.recipients[0].stage is Stage.ACCEPTED
        assert (at_bob.stage, at_bob.shown.witness, at_bob.steps[-1].detail) == (
            Stage.REFUSED,
            Witness.BROKER,
            "mailbox_full",
        )
        assert absent not in {one.peer for one in first.recipients}


async def test_an_open_channel_reaches_those_who_joined_it(tmp_path: Path) -> None:
    """Its name travels to all; its posts only to who subscribed, until they leave."""
    async with team(tmp_path, "alice", "bob", "carol") as (_, (alice, bob, carol)):
        made = await alice.create_channel("deploys", topic="what goes out")
        await knows_channel(bob, "#deploys")
        await knows_channel(carol, "#deploys")
        joined = await bob.join_channel("#deploys")
        await alice.send("#deploys", "v1 is out")
        (first,) = await take(bob, 1)
        await bob.reply(first, "seen")
        (reply,) = await take(alice, 1)
        await bob.leave_channel("#deploys")
        await alice.send("#deploys", "v2 is out")

        await silent(bob)
        await silent(carol)
        assert (made.joined, joined.joined, joined.topic) == (True, True, "what goes out")
        assert (first.text, first.channel) == ("v1 is out", "#deploys")
        assert (reply.text, reply.channel, reply.reply_to) == ("seen", "#deploys", first.id)
        assert not carol.channel("#deploys").joined


async def test_what_was_missed_between_leaving_and_joining_is_reported_as_a_gap(tmp_path: Path) -> None:
    """The counter of a sender runs on for everybody in the channel, whoever reads."""
    async with team(tmp_path, "alice", "bob") as (_, (alice, bob)):
        await alice.send("#general", "one")
        (one,) = await take(bob, 1)
        await bob.leave_channel("#general")
        for text in ("two", "three"):
            sent = await alice.send("#general", text)
            await alice.wait_for(sent.id, "accepted", 10)
        await bob.join_channel("#general")
        await alice.send("#general", "four")
        (four,) = await take(bob, 1)

        assert (one.gap, four.text, four.gap) == (0, "four", 2)


async def test_a_private_channel_has_the_members_that_its_creator_adds(tmp_path: Path) -> None:
    """Nobody else reads, writes, enters, or hears its name."""
    async with team(tmp_path, "alice", "bob", "carol") as (_, (alice, bob, carol)):
        made = await alice.create_channel("salaries", "private")
        added = await alice.add_to_channel("#salaries", "bob")
        await knows_channel(bob, "#salaries")
        await alice.send("#salaries", "a raise")
        (received,) = await take(bob, 1)
        await in_roster(carol, alice)
        (seen_by_carol,) = [one for one in carol.channels() if one.id == made.id]

        assert (added, received.channel) == ((bob.id,), "#salaries")
        assert seen_by_carol.name == f"#{made.id[:8]}"
        for refused in (carol.join_channel(f"#{made.id}"), carol.send(f"#{made.id}", "hello?")):
            with pytest.raises(AddressError) as error:
                await refused
            assert error.value.code == "not_joined"
        with pytest.raises(RosterRefused):
            await carol.add_to_channel(f"#{made.id}", "carol.box")
        await silent(carol)


async def test_anybody_may_enter_and_leave_a_group(tmp_path: Path) -> None:
    """A group's name is known to all; who enters reads from then on, who leaves reads no more."""
    async with team(tmp_path, "alice", "bob", "carol") as (_, (alice, bob, carol)):
        await alice.create_channel("@reviewers")
        await knows_channel(bob, "@reviewers")
        joined = await bob.join_channel("@reviewers")
        await alice.send("@reviewers", "please look at 12")
        (received,) = await take(bob, 1)
        await bob.leave_channel("@reviewers")
        await in_roster(alice, bob)
        await alice.send("@reviewers", "and at 13")

        await silent(bob)
        await silent(carol)
        assert set(joined.members) == {alice.id, bob.id}
        assert received.channel == "@reviewers"
        assert alice.channel("@reviewers").members == (alice.id,)


async def test_ten_open_channels_cost_one_rotation(tmp_path: Path) -> None:
    """All open channels share one epoch, whose channel keys are derived."""
    async with team(tmp_path, "alice", "bob") as (_, (alice, bob)):
        for number in range(10):
            await alice.create_channel(f"topic{number}")
            await knows_channel(bob, f"#topic{number}")
            await bob.join_channel(f"#topic{number}")
        for number in range(10):
            await alice.send(f"#topic{number}", str(number))
        received = await take(bob, 10)

        assert {message.channel: message.text for message in received} == {f"#topic{n}": str(n) for n in range(10)}
        assert len(epochs_of(bob)) == 1
        assert epochs_of(alice) == epochs_of(bob)


async def test_a_storm_of_joiners_costs_one_rotation(tmp_path: Path) -> None:
    """Nobody rotates because somebody joined; the next who writes does, once for all of them."""
    async with team(tmp_path, "alice", "bob") as (made, (alice, bob)):
        await alice.send("#general", "before")
        await take(bob, 1)
        before = epochs_of(bob)
        joined = await made.join("carol", "dave", "erin")
        held_after_joining = epochs_of(bob)
        for peer in (alice, bob):
            await in_roster(peer, joined[-1])
        await alice.send("#general", "welcome")
        texts = [(await take(peer, 1))[0].text for peer in (bob, *joined)]

        assert texts == ["welcome"] * 4
        assert held_after_joining == before
        assert len(epochs_of(bob) - before) == 1


async def test_concurrent_rotations_converge(tmp_path: Path) -> None:
    """Everybody reads what was sent under either epoch, and the next message of each is under the same one."""
    async with team(tmp_path, "alice", "bob", "carol") as (_, peers):
        await asyncio.gather(*(peer.send("#general", f"first of {peer.address}") for peer in peers))
        for peer in peers:
            assert {one.text for one in await take(peer, 2)} == {
                f"first of {other.address}" for other in peers if other is not peer
            }
        await eventually(lambda: len({frozenset(epochs_of(peer)) for peer in peers}) == 1, "the same epochs")
        usable = {peer._parts.channels.epochs.usable(EVERYONE).id for peer in peers}

        assert len(usable) == 1
        before = epochs_of(peers[0])
        await asyncio.gather(*(peer.send("#general", "second") for peer in peers))
        for peer in peers:
            assert [one.text for one in await take(peer, 2)] == ["second"] * 2
        assert epochs_of(peers[0]) == before


async def test_who_was_offline_reads_everything_on_return(tmp_path: Path) -> None:
    """Epochs and posts wait in the mailbox, in their order, over several rotations."""
    async with team(tmp_path, "alice", "bob") as (made, (alice, bob)):
        await alice.create_channel("@ops")
        await alice.add_to_channel("@ops", "bob")
        await knows_channel(bob, "@ops")
        await made.close("bob")
        await alice.send("@ops", "one")
        (carol,) = await made.join("carol")
        await alice.add_to_channel("@ops", "carol")
        sent = await alice.send("@ops", "two")
        await alice.wait_for(sent.id, "accepted", 10)
        bob = await made.open("bob")
        received = await take(bob, 2)
        rotations = epochs_of(bob, alice.channel("@ops").id)

        assert [(one.text, one.gap) for one in received] == [("one", 0), ("two", 0)]
        assert received[0].is_stale
        assert not received[1].is_stale
        assert len(rotations) == 2
        await bob.send("@ops", "back")
        assert (await take(carol, 2))[1].text == "back"
        assert epochs_of(bob, alice.channel("@ops").id) == rotations


async def test_whoever_removes_a_member_replaces_the_secret_at_once(tmp_path: Path) -> None:
    """The others have the new epoch before anybody writes; the removed one never gets it."""
    async with team(tmp_path, "alice", "bob", "carol") as (_, (alice, bob, carol)):
        channel = await alice.create_channel("@ops")
        for name in ("bob", "carol"):
            await alice.add_to_channel("@ops", name)
        await alice.send("@ops", "all here")
        for peer in (bob, carol):
            await take(peer, 1)
        before = epochs_of(bob, channel.id)
        removed = await alice.remove_from_channel("@ops", "carol")
        await eventually(lambda: epochs_of(bob, channel.id) > before, "the new epoch")
        await bob.send("@ops", "without carol")
        (received,) = await take(alice, 1)

        assert (removed.peers, removed.rotated) == ((carol.id,), True)
        assert received.text == "without carol"
        assert epochs_of(carol, channel.id) == before
        await silent(carol)


async def test_a_revoker_replaces_every_secret_that_the_revoked_peer_knew(tmp_path: Path) -> None:
    """One new epoch for all open channels, one for each closed channel that it was in; none for the others."""
    async with team(tmp_path, "alice", "bob", "carol") as (_, (alice, bob, _carol)):
        shared = await alice.create_channel("@ops")
        await alice.add_to_channel("@ops", "bob")
        await alice.add_to_channel("@ops", "carol")
        other = await alice.create_channel("@duo")
        await alice.add_to_channel("@duo", "bob")
        for address in ("@ops", "@duo", "#general"):
            sent = await alice.send(address, "hello")
            await alice.wait_for(sent.id, "delivered", 10)
        known = {scope: epochs_of(alice, scope) for scope in (EVERYONE, shared.id, other.id)}
        revoked = await alice.revoke("carol")

        assert revoked.rotated
        assert epochs_of(alice, EVERYONE) > known[EVERYONE]
        assert epochs_of(alice, shared.id) > known[shared.id]
        assert epochs_of(alice, other.id) == known[other.id]
        await eventually(lambda: epochs_of(bob) == epochs_of(alice), "the new epoch of all open channels")
        assert epochs_of(bob, other.id) == epochs_of(alice, other.id)
        assert await alice.rotate_scopes() == []


async def test_a_name_that_looks_like_another_is_refused_and_shown_with_its_id(tmp_path: Path) -> None:
    """A newcomer cannot make a channel that passes for an older one, at whoever knows that one."""
    async with team(tmp_path, "alice", "bob") as (_, (alice, bob)):
        await alice.create_channel("deploy-log")
        await knows_channel(bob, "#deploy-log")
        with pytest.raises(AddressError) as error:
            await bob.create_channel("depl0y_1og")
        imitation = await make_without_asking(bob, "depl0y_1og")
        shown = f"#depl0y_1og~{imitation[:8]}"
        await knows_channel(alice, shown)

        assert error.value.code == "name_taken"
        assert alice.channel(shown).id == imitation
        with pytest.raises(AddressError):
            alice.channel("#depl0y_1og")


async def test_who_joins_the_mesh_is_told_the_names_that_everybody_may_know(tmp_path: Path) -> None:
    """Open channels and groups, by any member; never a private one."""
    async with team(tmp_path, "alice", "bob") as (made, (alice, bob)):
        await alice.create_channel("deploys")
        await alice.create_channel("@reviewers")
        await alice.create_channel("salaries", "private")
        await knows_channel(bob, "@reviewers")
        await made.close("alice")
        made.peers = {"bob": bob}
        phone = await made.link_device("bob", "phone")
        await knows_channel(phone, "@reviewers")

        assert {one.name for one in phone.channels() if one.kind != "private"} == {
            "#general",
            "#deploys",
            "@reviewers",
        }
        assert all(one.name == f"#{one.id[:8]}" for one in phone.channels() if one.kind == "private")
