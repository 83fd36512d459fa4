"""What a broker holds after all that can be done with channels: no text, no name, no topic, no tag, no secret."""

from pathlib import Path

from claudemesh.peer import Peer
from tests.attacks.canaries import MARK, Canaries, canary
from tests.integration.test_peer_channel_secrets import keys_of
from tests.teams import Team, eventually, knows_channel, take, team

NAME = "kanarienvogel7qz"
"""The mark as channel names allow it."""


async def drive_channels(made: Team, alice: Peer, bob: Peer, carol: Peer) -> None:
    """What people do with channels, groups and tags; each text and name in it is a canary."""
    await alice.create_channel(f"#{NAME}-open", topic=canary("topic"))
    await alice.create_channel(f"#{NAME}-private", "private", topic=canary("private-topic"))
    await alice.create_channel(f"@{NAME}-group")
    for peer in (bob, carol):
        for name in (f"#{NAME}-open", f"@{NAME}-group"):
            await knows_channel(peer, name)
        await peer.join_channel(f"#{NAME}-open")
    await alice.add_to_channel(f"#{NAME}-private", "bob")
    await knows_channel(bob, f"#{NAME}-private")
    await bob.join_channel(f"@{NAME}-group")
    await alice.add_to_channel(f"@{NAME}-group", "carol")
    await bob.open_session("builder", tags=[f"repo={NAME}"])
    for channel in (f"#{NAME}-open", f"#{NAME}-private", f"@{NAME}-group", "#general"):
        await alice.send(channel, canary(f"post in {channel}"))
    assert len(await take(bob, 4)) == 4
    assert len(await take(carol, 3)) == 3
    (dave,) = await made.join("dave")
    await alice.add_to_channel(f"@{NAME}-group", "dave")
    await knows_channel(dave, f"@{NAME}-group")
    await alice.share_history(f"@{NAME}-group", "dave")
    await eventually(lambda: bool(alice.channel(f"@{NAME}-group").members), "the group")
    await bob.leave_channel(f"@{NAME}-group")
    await alice.remove_from_channel(f"@{NAME}-group", "carol")
    await alice.revoke("dave", "removed")
    await made.close("bob")
    last = await alice.send(f"#{NAME}-private", canary("for who is away"))
    await alice.wait_for(last.id, "accepted", 10)


async def test_the_broker_holds_nothing_of_what_is_said_in_channels_or_what_they_are_called(tmp_path: Path) -> None:
    """Its database, write-ahead log and log file, in every spelling; the same search finds it with the peers."""
    async with team(tmp_path, "alice", "bob", "carol") as (made, (alice, bob, carol)):
        await drive_channels(made, alice, bob, carol)
        database = _bytes_of(tmp_path, "broker*")
        channel_ids = [view.id for view in alice.channels() if not view.built_in]
        for name in list(made.peers):
            await made.close(name)
        canaries = Canaries({"a channel's name": NAME.encode()})
        for name in ("alice", "bob", "carol"):
            canaries.add_config(name, tmp_path / name)
            _, secrets = await keys_of(tmp_path / name)
            assert secrets
            canaries.secrets |= {f"epoch {number} of {name}": secret for number, secret in enumerate(secrets)}

        journal = _bytes_of(tmp_path / "alice", "state.db*")
        assert len(channel_ids) == 3
        assert all(channel.encode() in database for channel in channel_ids)
        assert {"a channel's name", "a canary text"} <= canaries.found_in_bytes(journal)
        assert MARK.encode() in journal
        assert canaries.found_in_bytes(database) == set()


def _bytes_of(directory: Path, pattern: str) -> bytes:
    return b"".join(one.read_bytes() for one in sorted(directory.glob(pattern)) if one.is_file())
