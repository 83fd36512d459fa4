"""The second act: a channel, a device that is revoked while everybody is away, and a newcomer (called by `run.py`).

Two users with three devices and one bot talk in #deploys. The peers are real and run in this process, through the SDK;
each is offline whenever it is not open here. The broker is a process, its database a file, which a thief copies.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
from stage import Broker, Failed, expect, say

import claudemesh
from claudemesh.crypto import statements
from claudemesh.crypto.epoch_record import EpochRecord, open_record
from claudemesh.crypto.epochs import channel_key, open_slot
from claudemesh.crypto.primitives import secretbox_open
from claudemesh.errors import ClaudemeshError
from claudemesh.peer import Peer
from claudemesh.peer.journal import Journal
from claudemesh.peer.journal import epochs as epoch_rows
from claudemesh.peer.keystore import Keystore
from claudemesh.protocol import codec
from claudemesh.protocol.messages import Post
from claudemesh.types import BoxId, ChannelId

CHANNEL = "#deploys"
BEFORE = "bot: build 41 is green"
AFTER = ("alice: we roll the keys at noon", "bot: build 42 is green, and nobody's phone is watching")
_PATIENCE_S = 30


def second_act(directory: Path) -> None:
    """Show who can read a channel, and who cannot."""
    broker = Broker(directory / "channels-broker")
    broker.start()
    try:
        asyncio.run(_play(broker, directory))
    finally:
        broker.kill()


async def _play(broker: Broker, directory: Path) -> None:
    say(f"\n7. Two users with three devices and a bot meet in {CHANNEL}, on a broker of their own.")
    alice, bob, phone, bot = (directory / name for name in ("alice-laptop", "bob-laptop", "bob-phone", "deploybot"))
    await _gather(broker, alice, bob, phone, bot)
    await _say_in_the_channel(bot, BEFORE)
    for reader in (alice, bob, phone):
        async with _online(reader) as peer:
            expect(f"{peer.address} reads {BEFORE!r}", await _reads(peer, BEFORE))

    say(
        "\n8. Everybody goes offline. alice comes back alone, revokes bob's phone, and leaves again; then people write."
    )
    async with _online(alice) as peer:
        revoked = await peer.revoke("bob.phone", "stolen")
        expect("alice.laptop removes bob.phone, with nobody else there", len(revoked.peers) == 1)
        expect("and has replaced at once what it knew of channels", revoked.rotated)
    await _say_in_the_channel(alice, AFTER[0])
    await _say_in_the_channel(bot, AFTER[1])

    say("\n9. A thief has the phone, with every key that it ever held, and a copy of the broker's database:")
    loot = _copied(broker, directory / "loot.db")
    waiting = {post.id for post in loot.posts}
    expect(
        f"the copy holds what still waits for bob's laptop: {len(loot.posts)} posts, encrypted,"
        f" and {len(loot.slots)} sealed copy of the channel's new secret",
        bool(waiting),
    )
    stolen = _opened(loot, *await _keys_in(phone))
    expect(
        "every key of the phone is tried on all of it: nothing opens that was written after the revocation", not stolen
    )
    expect(
        "the trial itself works: with the keys of bob's laptop both open", len(_opened(loot, *await _keys_in(bob))) == 2
    )
    async with _online(bob) as peer:
        expect("bob's laptop comes back and reads them", all([await _reads(peer, text) for text in AFTER]))

    say("\n10. carol joins by a link; bob is there, nobody has shared anything.")
    carol = directory / "carol-desktop"
    async with _online(alice) as owner:
        link, _ = await owner.invite()
    await claudemesh.join(link, name="carol", device="desktop", config_dir=carol)
    async with _online(bob) as sharer, _online(carol) as newcomer:
        await _until(lambda: CHANNEL in _names(newcomer), "carol learns the channel's name from bob, end to end")
        await newcomer.join_channel(CHANNEL)
        expect("of what came before she has nothing", not await newcomer.channel_history(CHANNEL))
        await _until(lambda: newcomer.address in {sharer.address_of(newcomer.id)}, "bob learns carol's name")
        [shared] = await sharer.share_history(CHANNEL, "carol")
        await _until_history(newcomer, shared.messages)
        history = await newcomer.channel_history(CHANNEL)
        expect(
            f"bob shares {shared.messages} messages; she reads them, each signed by its author, whose key she checks:",
            len(history) == 3,
        )
        for one in history:
            # She has not met the authors yet, and so knows their keys only; what they are called, bob knows.
            author = f"{sharer.address_of(one.sender_id)} [{one.sender_id[:8]}]"
            say(f"          {author}: {one.text!r}   (shared by {one.shared_by})")
        expect("in the order in which they were written", [one.text for one in history] == [BEFORE, *AFTER])


# The cast


async def _gather(broker: Broker, alice: Path, bob: Path, phone: Path, bot: Path) -> None:
    """Found the mesh, let everybody join it, and wait until all know the channel."""
    await claudemesh.create_mesh(broker.url, name="alice", device="laptop", config_dir=alice)
    async with _online(alice) as owner:
        link, _ = await owner.invite(uses=2)
        await claudemesh.join(link, name="bob", device="laptop", config_dir=bob)
        await claudemesh.join(link, name="deploybot", device="ci", config_dir=bot)
        async with _online(bob) as second, _online(bot) as robot:
            device_link, _ = await second.invite(device=True)
            await claudemesh.join(device_link, name="bob", device="phone", config_dir=phone)
            async with _online(phone) as third:
                await owner.create_channel(CHANNEL, topic="what goes out, and when")
                for peer in (second, third, robot):
                    await _until(lambda peer=peer: CHANNEL in _names(peer), f"{peer.address} learns of {CHANNEL}")  # type: ignore[misc]
                    await peer.join_channel(CHANNEL)
                await _until(lambda: _knows(owner, "bob.phone"), "alice knows the phone by name")
                members = owner.channel(CHANNEL).members
                expect(f"{CHANNEL} has four members; the broker is told neither its name nor theirs", len(members) == 4)


@asynccontextmanager
async def _online(home: Path) -> AsyncIterator[Peer]:
    async with Peer.open(home) as peer:
        await peer.wait_connected()
        yield peer


async def _say_in_the_channel(home: Path, text: str) -> None:
    """Come online, post, wait for the broker's signature, go offline."""
    async with _online(home) as peer:
        sent = await peer.send(CHANNEL, text)
        status = await peer.wait_for(sent.id, "accepted", _PATIENCE_S)
        expect(f"{peer.address} writes {text!r}, and goes offline", bool(status))


async def _reads(peer: Peer, text: str) -> bool:
    async with asyncio.timeout(_PATIENCE_S):
        async for message in peer.messages():
            await peer.mark_seen(message)
            if message.text == text:
                return True
    return False


def _names(peer: Peer) -> set[str]:
    return {channel.name for channel in peer.channels()}


def _knows(peer: Peer, address: str) -> bool:
    try:
        peer.resolve(address)
    except ClaudemeshError:
        return False
    return True


async def _until(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.02)
    except TimeoutError as error:
        raise Failed(f"waited in vain: {what}") from error


async def _until_history(peer: Peer, count: int) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while len(await peer.channel_history(CHANNEL)) < count:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.05)


# The thief


class Loot(NamedTuple):
    """What a database copy has of channels: posts, records of epochs, and every slot of any of them."""

    posts: list[Post]
    records: list[EpochRecord]
    slots: list[str]


def _copied(broker: Broker, copy: Path) -> Loot:
    """Take the database with its write-ahead log, and look at every cell of every table."""
    for suffix in ("", "-wal"):
        source = broker.database.with_name(broker.database.name + suffix)
        if source.exists():
            shutil.copyfile(source, copy.with_name(copy.name + suffix))
    posts, records, slots = [], [], []
    for cell in _cells(copy):
        if len(cell) == 72:
            slots.append(cell.decode())
        elif cell.startswith(b"{") and b'"t":"post"' in cell:
            posts.append(msgspec.json.decode(cell, type=Post))
        elif cell.startswith(b"{") and b'\\"kc\\"' in cell:
            records.append(open_record(codec.decode_epoch(cell).st))
    return Loot(posts, records, slots)


def _cells(database: Path) -> Iterator[bytes]:
    for row in Broker.rows_of(database):
        for cell in row:
            yield cell if isinstance(cell, bytes) else str(cell).encode()


async def _keys_in(home: Path) -> tuple[dict[BoxId, bytes], list[bytes]]:
    """Every box key and epoch secret in a configuration directory."""
    with Keystore.open(home) as keystore:
        (mesh,) = keystore.meshes
        async with Journal(keystore.journal_path) as journal:
            held = await journal.read(lambda connection: epoch_rows.load_held(connection, mesh.id))
    return {BoxId(box.box): bytes.fromhex(box.box_sk) for box in mesh.peer.boxes}, [one.secret for one in held]


def _opened(loot: Loot, boxes: dict[BoxId, bytes], secrets: list[bytes]) -> set[str]:
    """The posts that open: with a secret that was held, or with one out of any slot that opens with a key."""
    known = list(secrets)
    for record in loot.records:
        for slot in loot.slots:
            try:
                known.append(open_slot(slot, record, boxes))
            except ClaudemeshError:
                continue
    return {post.id for post in loot.posts if any(_opens(post, secret) for secret in known)}


def _opens(post: Post, secret: bytes) -> bool:
    key = channel_key(secret, ChannelId(post.chan))
    try:
        secretbox_open(statements.from_base64url(post.ct), statements.from_base64url(post.nonce), key)
    except ClaudemeshError:
        return False
    return True
