"""Attacks on the keys to which real peers encrypt: cards that the broker alters, swaps or serves again."""

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec

from claudemesh.crypto import primitives, statements
from claudemesh.crypto.primitives import BoxKey
from claudemesh.crypto.statements import Statement
from claudemesh.errors import ClaudemeshError
from claudemesh.protocol import messages
from tests.attacks.wire_member import WireMember
from tests.attacks.worlds import Outcome, Victim, World

SECRET_TEXT = "for carol alone"


async def swap_the_box_key_in_a_card(world: World) -> Outcome:
    """A09: the true card with another key, signed by nobody, by the broker, and by another member."""
    bob, carol, thief = await world.victim("bob"), world.member("carol"), primitives.box_key(os.urandom(32))
    await world.announce()
    mallory = world.member("mallory")
    await world.announce()
    true = carol.card()
    forged_body = true.b.replace(carol.box.public, thief.public)
    forgeries = [
        Statement(forged_body, true.k, true.s),
        statements.sign_statement(statements.decode(forged_body.encode()), "card", world.broker.key),
        statements.sign_statement(statements.decode(forged_body.encode()), "card", mallory.sign),
        Statement(forged_body, true.k, statements.sign_bytes(carol.sign, "att", forged_body.encode())),
    ]

    used = set()
    for forgery in forgeries:
        world.held.cards_shown_to[bob.id] = {carol.id: forgery}
        await bob.settled()
        shown = _times_shown(world, carol)
        await world.broker.drop_links(bob.id)
        await world.broker.connected(bob.id)
        used.add(await _key_used_for(world, bob, carol))
        assert _times_shown(world, carol) > shown

    return Outcome(used != {carol.box.public}, bob.codes)


async def serve_an_older_card(world: World) -> Outcome:
    """A09: carol has rotated her key; the broker goes back to the card before, of which a thief has the secret."""
    bob, carol = await world.victim("bob"), world.member("carol")
    await world.announce()
    old = world.held.cards[carol.id] = carol.card()
    carol.box = primitives.box_key(os.urandom(32))
    new = world.held.cards[carol.id] = carol.card()
    await world.deliver(bob, carol.write(bob.id, bob.kid, "my key has changed"))
    first = await _key_used_for(world, bob, carol)

    world.held.cards[carol.id] = old
    bob = await bob.restarted()
    await world.broker.connected(bob.id)
    second = await _key_used_for(world, bob, carol)

    assert new.b != old.b
    return Outcome({first, second} != {carol.box.public}, frozenset())


async def serve_a_card_from_before_a_rekey(world: World) -> Outcome:
    """A47: carol's key was stolen and she said so in the roster; a newcomer is served the old card."""
    carol = world.member("carol")
    stolen = carol.box
    world.held.cards[carol.id] = carol.card()
    carol.box = primitives.box_key(os.urandom(32))
    await world.extend(carol.entry("rekey", box=carol.box.public, cs=2))
    bob = await world.victim("bob")

    used = await _key_used_for(world, bob, carol)

    return Outcome(used == stolen.public, frozenset({"" if used == carol.box.public else "another key"}))


async def offer_a_key_of_low_order(world: World) -> Outcome:
    """A31: a member whose box key makes every shared secret the same; nothing may be encrypted to it."""
    bob = await world.victim("bob")
    codes = set()
    for point in ("00" * 32, "01" + "00" * 31, "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"):
        weak = WireMember("weak", world.clock)
        weak.box = BoxKey(point, bytes(32))
        link = await world.invite()
        world.admit(weak, link)
        await world.announce()
        await bob.reaches(world.held.main.seq)
        try:
            primitives.box(b"x", bytes(24), point, os.urandom(32))
        except ClaudemeshError as error:
            codes.add(error.code)
        submitted = await send(bob, weak.id, SECRET_TEXT)
        await asyncio.sleep(0.1)
        if any(row.envelope and row.send.to == weak.id for row in world.held.mail):
            return Outcome(True, frozenset(codes))
        assert submitted
    await world.probe(bob)
    return Outcome(False, frozenset(codes))


async def send(sender: Victim, to: str, text: str) -> Any:
    """Send as a real peer; a refusal is as good as silence here."""
    try:
        return await sender.peer.send(to, text)
    except ClaudemeshError as error:
        return error.code


async def _key_used_for(world: World, sender: Victim, recipient: WireMember) -> str:
    """The box key to which the next message of a real peer is encrypted; "" when it refuses to send."""
    text = f"{SECRET_TEXT} {os.urandom(4).hex()}"
    world.held.mail.take(recipient.id)
    await send(sender, recipient.id, text)

    def sent() -> str:
        for row in world.held.mail.of(recipient.id):
            if row.envelope is not None and _opens(world, recipient, row.envelope, text):
                return row.send.kid
            if row.envelope is not None and row.send.kid != recipient.box.public:
                return row.send.kid
        return ""

    return str(await world.until(sent, f"{sender.name} sends to {recipient.name}"))


def _times_shown(world: World, member: WireMember) -> int:
    """How often somebody has asked for the member's card."""
    return sum(member.id in asked.members for asked in world.broker.heard(messages.GetCards))


def _opens(world: World, recipient: WireMember, envelope: bytes, text: str) -> bool:
    frame = msgspec.json.decode(envelope)
    try:
        opened = recipient.read(envelope, world.held.attestations[frame["att"]])
    except ClaudemeshError:
        return False
    return opened.body == text.encode()


def config_secrets(directory: Path) -> list[bytes]:
    """Every secret in a configuration, raw."""
    config = msgspec.json.decode((directory / "config.json").read_bytes())
    return [bytes.fromhex(secret) for secret in _secrets(config)]


def _secrets(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [one for name, one in value.items() if name.endswith("_sk") and one]
        return own + [found for one in value.values() for found in _secrets(one)]
    if isinstance(value, list):
        return [found for one in value for found in _secrets(one)]
    return []
