"""Who can read a channel: with all keys that a peer ever held, and a copy of everything that the broker stores."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

import claudemesh
from claudemesh.crypto import statements
from claudemesh.crypto.epoch_record import EpochRecord, open_record
from claudemesh.crypto.epochs import channel_key, open_slot
from claudemesh.crypto.primitives import secretbox_open
from claudemesh.errors import AddressError, ClaudemeshError, Unopenable, UsageError
from claudemesh.peer.journal import Journal
from claudemesh.peer.journal import epochs as epoch_rows
from claudemesh.peer.keystore import Keystore
from claudemesh.protocol import codec
from claudemesh.protocol.messages import Post
from claudemesh.types import BoxId, ChannelId
from tests.faults.peers import knows
from tests.teams import history_of, knows_channel, silent, take, team


class Stolen(NamedTuple):
    """Everything that a broker has of channels: posts, records, and every slot of any of them."""

    posts: list[Post]
    records: list[EpochRecord]
    slots: list[str]


def steal(database: Path) -> Stolen:
    """Read a broker's whole database, whatever its tables are called."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    values = [value for table in tables for row in connection.execute(f"SELECT * FROM {table}") for value in row]  # noqa: S608
    connection.close()
    texts = [value if isinstance(value, bytes) else str(value).encode() for value in values]
    posts, records = [], []
    for text in texts:
        if text.startswith(b"{") and b'"t":"post"' in text:
            posts.append(msgspec.json.decode(text, type=Post))
        elif text.startswith(b"{") and b'"kc' in text:
            records.append(open_record(codec.decode_epoch(text).st))
    return Stolen(posts, records, [text.decode() for text in texts if len(text) == 72])


async def keys_of(home: Path) -> tuple[dict[BoxId, bytes], list[bytes]]:
    """The box secrets and epoch secrets in a configuration directory."""
    with Keystore.open(home) as keystore:
        (mesh,) = keystore.meshes
        boxes = {BoxId(box.box): bytes.fromhex(box.box_sk) for box in mesh.peer.boxes}
        async with Journal(keystore.journal_path) as journal:
            held = await journal.read(lambda connection: epoch_rows.load_held(connection, mesh.id))
    return boxes, [epoch.secret for epoch in held]


def readable(stolen: Stolen, boxes: Mapping[BoxId, bytes], secrets: list[bytes]) -> set[str]:
    """Ids of the stolen posts that open with any key, however it may be had."""
    known = list(secrets)
    for record in stolen.records:
        for slot in stolen.slots:
            try:
                known.append(open_slot(slot, record, boxes))
            except ClaudemeshError:
                continue
    opened = set()
    for post in stolen.posts:
        for secret in known:
            try:
                secretbox_open(
                    statements.from_base64url(post.ct),
                    statements.from_base64url(post.nonce),
                    channel_key(secret, ChannelId(post.chan)),
                )
            except Unopenable:
                continue
            opened.add(post.id)
    return opened


async def test_a_revoked_device_and_the_brokers_database_open_nothing_that_follows(tmp_path: Path) -> None:
    """Two users, three devices, a private channel; the same search with a member's keys finds it (the control)."""
    async with team(tmp_path, "alice", "bob") as (made, (alice, bob)):
        phone = await made.link_device("bob", "phone")
        await alice.create_channel("deploys", "private")
        await alice.add_to_channel("#deploys", "bob")
        for peer in (bob, phone):
            await knows_channel(peer, "#deploys")
        before = await alice.send("#deploys", "before")
        for peer in (bob, phone):
            assert [one.text for one in await take(peer, 1)] == ["before"]
        await made.close("bob")
        await made.close("bob.phone")

        await alice.revoke("bob.phone")
        after = await alice.send("#deploys", "after")
        await alice.wait_for(after.id, "accepted", 10)

        stolen = steal(tmp_path / "broker.db")
        phones = await keys_of(tmp_path / "bob.phone")
        bobs = await keys_of(tmp_path / "bob")
        assert after.id in {post.id for post in stolen.posts}
        assert phones[1]
        assert readable(stolen, *phones) <= {before.id}
        assert after.id in readable(stolen, *bobs)
        bob = await made.open("bob")
        assert [one.text for one in await take(bob, 1)] == ["after"]


async def test_a_newcomer_reads_nothing_from_before_until_a_member_shares_it(tmp_path: Path) -> None:
    """Neither by the broker's store nor by itself; what is shared is what was said, by whom it was said."""
    async with team(tmp_path, "alice", "bob") as (made, (alice, bob)):
        await alice.create_channel("@ops")
        await alice.add_to_channel("@ops", "bob")
        await knows_channel(bob, "@ops")
        await made.close("bob")  # so that the broker still has what follows
        early = [await alice.send("@ops", text) for text in ("one", "two")]
        await alice.wait_for(early[-1].id, "accepted", 10)
        (carol,) = await made.join("carol")
        await alice.add_to_channel("@ops", "carol")
        await knows_channel(carol, "@ops")
        await alice.send("@ops", "welcome")
        assert [one.text for one in await take(carol, 1)] == ["welcome"]
        stolen = steal(tmp_path / "broker.db")
        await made.close("carol")
        assert not readable(stolen, *await keys_of(tmp_path / "carol")) & {one.id for one in early}
        carol = await made.open("carol")
        assert [one.text for one in await carol.channel_history("@ops")] == ["welcome"]

        [shared] = await alice.share_history("@ops", "carol")
        await history_of(carol, "@ops", 3)

        history = await carol.channel_history("@ops")
        assert [(one.text, one.sender, one.shared_by) for one in history] == [
            ("one", "alice.box", "alice.box"),
            ("two", "alice.box", "alice.box"),
            ("welcome", "alice.box", ""),
        ]
        assert (shared.messages, shared.epochs) == (3, 1)
        await silent(carol)  # nothing of it is new, and nobody is woken by it


async def test_history_is_shared_with_members_only(tmp_path: Path) -> None:
    """Neither by nor with somebody who is not in the channel."""
    async with team(tmp_path, "alice", "bob") as (_, (alice, bob)):
        await alice.create_channel("@ops")
        await knows_channel(bob, "@ops")
        for peer, other in ((alice, "bob"), (bob, "alice")):
            with pytest.raises(AddressError) as error:
                await peer.share_history("@ops", other)
            assert error.value.code == "not_joined"


async def test_a_person_is_given_the_history_on_every_device_that_is_in_the_channel(tmp_path: Path) -> None:
    """What each device gets is counted by itself; nobody gets back what they wrote."""
    async with team(tmp_path, "alice", "bob") as (made, (alice, bob)):
        link, _ = await bob.invite(device=True)
        await claudemesh.join(link, device="phone", config_dir=tmp_path / "bob.phone")
        phone = await made.open("bob.phone")
        await knows(alice, "bob.phone")
        await alice.create_channel("@ops")
        await alice.add_to_channel("@ops", "bob.box")
        await knows_channel(bob, "@ops")
        await alice.send("@ops", "one")
        assert [one.text for one in await take(bob, 1)] == ["one"]
        await bob.send("@ops", "two")
        assert [one.text for one in await take(alice, 1)] == ["two"]

        first = await alice.share_history("@ops", "bob")
        await alice.add_to_channel("@ops", "bob.phone")
        await knows_channel(phone, "@ops")
        second = await alice.share_history("@ops", "bob")
        await history_of(phone, "@ops", 2)

        assert [(one.peer, one.messages) for one in first] == [(bob.id, 1)]
        assert {one.peer: one.messages for one in second} == {bob.id: 1, phone.id: 2}
        with pytest.raises(UsageError):
            await alice.share_history("@ops", "alice")
