"""Two users, three devices and a bot in a channel: who reads what before and after a revocation, and a newcomer."""

from pathlib import Path

import claudemesh
from claudemesh.peer import Peer
from tests.integration.test_peer_channel_secrets import keys_of, readable, steal
from tests.teams import history_of, knows_channel, take, team

CHANNEL = "#deploys"


async def history(peer: Peer, count: int) -> list[str]:
    """The texts of a channel's history once it is that long."""
    return [one.text for one in await history_of(peer, CHANNEL, count)]


async def test_a_device_revoked_while_everybody_is_away_reads_nothing_that_follows(tmp_path: Path) -> None:
    """The phone's keys and the broker's whole database open nothing; the newcomer gets the past by hand only."""
    async with team(tmp_path, "alice", "bob", "bot") as (made, (alice, bob, bot)):
        phone = await made.link_device("bob", "phone")
        await alice.create_channel(CHANNEL)
        for peer in (bob, bot, phone):
            await knows_channel(peer, CHANNEL)
            await peer.join_channel(CHANNEL)
        before = await bot.send(CHANNEL, "build 41")
        for peer in (alice, bob, phone):
            assert [one.text for one in await take(peer, 1)] == ["build 41"]
        for name in ("bob", "bob.phone", "bot"):
            await made.close(name)

        await alice.revoke("bob.phone", "stolen")
        first = await alice.send(CHANNEL, "keys at noon")
        await alice.wait_for(first.id, "accepted", 10)
        await made.close("alice")
        bot = await made.open("bot")
        second = await bot.send(CHANNEL, "build 42")
        await bot.wait_for(second.id, "accepted", 10)
        await made.close("bot")
        stolen = steal(tmp_path / "broker.db")
        phones, bobs = await keys_of(tmp_path / "bob.phone"), await keys_of(tmp_path / "bob")

        after = {first.id, second.id}
        assert after <= {post.id for post in stolen.posts}
        assert phones[1]
        assert readable(stolen, *phones) <= {before.id}
        assert after <= readable(stolen, *bobs)

        await made.open("alice")
        bob = await made.open("bob")
        assert [one.text for one in await take(bob, 2)] == ["keys at noon", "build 42"]
        (carol,) = await made.join("carol")
        await knows_channel(carol, CHANNEL)
        await carol.join_channel(CHANNEL)
        await made.close("carol")
        assert not readable(steal(tmp_path / "broker.db"), *await keys_of(tmp_path / "carol")) & {before.id, *after}
        carol = await made.open("carol")
        assert await carol.channel_history(CHANNEL) == []
        await bob.share_history(CHANNEL, "carol")
        assert await history(carol, 3) == ["build 41", "keys at noon", "build 42"]


async def test_a_joiner_posts_and_writes_while_everybody_else_is_offline(tmp_path: Path) -> None:
    """It rotates by itself; the others read both when they return, and answer."""
    async with team(tmp_path, "alice") as (made, (alice,)):
        link, _ = await alice.invite()
        alices = alice.id
        await made.close("alice")
        await claudemesh.join(link, name="carol", device="box", config_dir=tmp_path / "carol")
        carol = await made.open("carol")

        posted = await carol.send("#general", "is anybody here?")
        wrote = await carol.send(alices, "for you alone")
        for sent in (posted, wrote):
            await carol.wait_for(sent.id, "accepted", 10)
        alice = await made.open("alice")

        assert {one.text for one in await take(alice, 2)} == {"is anybody here?", "for you alone"}
        await alice.send("#general", "now I am")
        assert [one.text for one in await take(carol, 1)] == ["now I am"]
