"""A30, A37, A38: what an invite link gives, and what it does not, among real peers at a real broker."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from claudemesh.broker.app import Broker
from claudemesh.broker.config import Settings
from claudemesh.crypto import statements
from claudemesh.crypto.invite import parse_link
from claudemesh.errors import LinkRefused, Unopenable
from claudemesh.listen import Listen
from claudemesh.peer import Runtime
from claudemesh.peer.events import PeerAdmitted
from claudemesh.protocol import codec
from tests.attacks.clock import eventually
from tests.attacks.real_peers import TEMPO, create_mesh, invite_of, join
from tests.attacks.wire_member import WireMember
from tests.attacks.worlds import Victim, World

RUNTIME = Runtime(tempo=TEMPO)


class Place:
    """A real broker, and real peers in directories of their own."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.url = url
        self.stack = AsyncExitStack()

    async def start(self, name: str) -> Victim:
        """Open a peer that has joined."""
        one = await Victim(name, self.directory / name, RUNTIME).start()
        self.stack.push_async_callback(one.stop)
        await one.peer.wait_connected()
        return one

    async def join(self, name: str, link: str) -> Victim:
        await join(self.directory / name, link, RUNTIME, name=name)
        return await self.start(name)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """A mesh of alice, who is offline."""
    async with Broker(Settings(listen=Listen("127.0.0.1", 0))) as broker:
        one = Place(tmp_path, f"ws://127.0.0.1:{broker.port}/ws")
        await create_mesh(tmp_path / "alice", one.url, RUNTIME)
        async with one.stack:
            yield one


async def test_a37_a_link_works_with_its_owner_offline_for_good(place: Place) -> None:
    """A37: three join and talk, mail to the owner waits, the fourth is refused with `invite_exhausted`."""
    link = await invite_of(place.directory / "alice", RUNTIME, uses=3)
    joined = [await place.join(name, link) for name in ("bob", "carol", "dave")]
    bob, carol, dave = joined

    with pytest.raises(LinkRefused, match="invite_exhausted"):
        await join(place.directory / "eve", link, RUNTIME, name="eve")
    await eventually(lambda: bob.roster().is_active(dave.id), "bob learns of dave")
    await bob.peer.send(dave.id, "we are in")
    await dave.peer.send(carol.id, "so are we")
    await eventually(lambda: "we are in" in dave.texts and "so are we" in carol.texts, "they talk")
    owner = next(iter(bob.roster().owners))
    sent = await carol.peer.send(owner, "hello owner")
    stage = await eventually(
        lambda: carol.rows("SELECT stage FROM outbox WHERE message_id = ? AND state = 'accepted'", sent.id),
        "the broker keeps the message",
    )
    alice = await place.start("alice")
    await eventually(lambda: "hello owner" in alice.texts, "the owner returns and reads")

    assert stage == [("accepted",)]
    assert len({one.id for one in joined}) == 3
    assert not (place.directory / "eve" / "config.json").exists() or "joining" not in (
        (place.directory / "eve" / "config.json").read_text()
    )


async def test_a38_a_device_link_adds_a_peer_of_the_same_user(place: Place) -> None:
    """A38: keys of its own, the same user; and the phone revokes the stolen laptop, which is out at once."""
    bob = await place.join("laptop", await invite_of(place.directory / "alice", RUNTIME))
    link, _ = await bob.peer.invite(device=True)
    phone = await place.join("phone", link)
    await eventually(lambda: bob.roster().is_active(phone.id), "the laptop learns of the phone")
    before = phone.roster()

    await phone.peer.revoke(bob.id, "stolen")
    alice = await place.start("alice")
    await eventually(lambda: not alice.roster().is_active(bob.id), "alice learns of the theft")
    await eventually(lambda: "revoked" in bob.link_errors[-1:], "the laptop is shut out")

    assert before.members[phone.id].user == before.members[bob.id].user
    assert phone.id != bob.id
    assert phone.box_secrets() != bob.box_secrets()
    assert alice.roster().is_active(phone.id)


async def test_a30_a_leaked_link_opens_nothing_that_was_recorded(theatre: World) -> None:
    """A30: neither the link's seed nor any key derived from it opens what the broker keeps."""
    bob, carol = await theatre.victim("bob"), await theatre.victim("carol")
    theatre.broker.hold_mail = True
    link = await theatre.invite()
    await bob.peer.send(carol.id, "before the leak")
    rows = await theatre.until(
        lambda: [row for row in theatre.held.mail.of(carol.id) if row.envelope], "the broker holds a message"
    )

    parsed = parse_link(link.text())
    thief = WireMember("thief")
    candidates = [parsed.seed + parsed.seed, statements.derive(parsed.seed, "invite-sign"), thief.box.secret]
    candidates.append(parsed.invite_key().secret[:32])
    opened = []
    for row in rows:
        frame = codec.decode_send(row.envelope)
        for secret in candidates:
            try:
                opened.append(thief.read(row.envelope, theatre.held.attestations[frame.att], secret))
            except Unopenable:
                continue

    assert rows
    assert opened == []


async def test_a30_a_leaked_link_makes_a_visible_peer_that_reads_nothing_from_before(place: Place) -> None:
    """A30: whoever uses it must appear in the roster first, and everybody is told."""
    alice = await place.start("alice")
    bob = await place.join("bob", (await alice.peer.invite())[0])
    leaked = (await alice.peer.invite())[0]
    await bob.peer.send(alice.id, "before the leak")
    await eventually(lambda: "before the leak" in alice.texts, "alice reads")

    thief = await place.join("thief", leaked)
    await eventually(
        lambda: thief.id in {event.peer for event in alice.events if isinstance(event, PeerAdmitted)},
        "alice is told of the new peer",
    )
    await eventually(lambda: bob.roster().is_active(thief.id), "bob sees it")
    await alice.peer.send(thief.id, "who are you?")
    await eventually(lambda: thief.texts, "the thief reads what is written to it")

    assert thief.texts == ["who are you?"]
    assert thief.codes == set()
