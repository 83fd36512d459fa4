"""Keys that time takes away: a recording that no device can open any more, by peers that run without a pause."""

import json
from collections.abc import Iterator
from itertools import product

from claudemesh.crypto import primitives, statements
from claudemesh.errors import Unopenable
from claudemesh.protocol import codec
from claudemesh.protocol.limits import BOX_SECRET_GRACE_MS, CARD_ROTATION_MS, DAY_MS
from claudemesh.protocol.messages import Send
from tests.attacks.worlds import Victim, World

ROTATIONS = 4
"""Three that the recipient's key is superseded by, and the one after which its grace is over."""


async def test_after_three_rotations_no_key_of_either_side_opens_a_recording(theatre: World) -> None:
    """Neither a box key of the recipient, nor a session of the sender: each of them did open it, once."""
    bob, carol = await theatre.victim("bob"), await theatre.victim("carol")
    sent = await carol.peer.send(bob.id, "recorded by the broker")
    await theatre.until(lambda: "recorded by the broker" in bob.texts, "bob reads it")
    recorded = await recording_of(theatre, sent.id)
    openers = {name for name, opens in tried(recorded, bob, carol) if opens}
    first = {victim.name: victim.keys["peer"]["boxes"][0]["cs"] for victim in (bob, carol)}

    for rotation in range(1, ROTATIONS + 1):
        theatre.clock.advance(CARD_ROTATION_MS + DAY_MS)
        for victim in (bob, carol):
            await victim.rotated_to(first[victim.name] + rotation)
    await theatre.until(lambda: len(bob.keys["peer"]["boxes"]) == 3, "what is older than the grace is deleted")

    assert openers == {"bob box", "carol session"}
    assert [name for name, opens in tried(recorded, bob, carol) if opens] == []
    assert recorded.kid not in {box["box"] for box in bob.keys["peer"]["boxes"]}
    assert ROTATIONS * CARD_ROTATION_MS > BOX_SECRET_GRACE_MS + CARD_ROTATION_MS


async def test_each_rotation_is_one_card_that_the_others_encrypt_to(theatre: World) -> None:
    """Nobody has to be restarted, and nothing is lost between two of them."""
    bob, carol = await theatre.victim("bob"), await theatre.victim("carol")

    for number in (2, 3):
        theatre.clock.advance(CARD_ROTATION_MS + DAY_MS)
        await bob.rotated_to(number)
        await carol.peer.send(bob.id, f"sealed to card {number}")
        await theatre.until(lambda number=number: f"sealed to card {number}" in bob.texts, "bob reads it")

    assert bob.codes == frozenset()


async def recording_of(world: World, message_id: str) -> Send:
    """The frame of a message, as the broker saw it."""
    frames = [codec.encode_message(frame) for _, frame in world.broker.received if isinstance(frame, Send)]
    return next(frame for frame in map(codec.decode_send, frames) if frame.id == message_id)


def tried(recorded: Send, *victims: Victim) -> Iterator[tuple[str, bool]]:
    """Every box secret that the victims hold now, tried with every public key of the recording."""
    nonce, ciphertext = statements.from_base64url(recorded.nonce), statements.from_base64url(recorded.ct)
    known = [(f"{victim.name} box", secret) for victim in victims for secret in victim.box_secrets()]
    for victim in victims:
        sessions = victim.peer._parts.sessions.all()
        known += [(f"{victim.name} session", session.keys.box.secret) for session in sessions]
    publics = {recorded.kid} | {statement_box(victim, recorded.att) for victim in victims}
    for (name, secret), public in product(known, sorted(filter(None, publics))):
        try:
            primitives.box_open(ciphertext, nonce, public, secret)
        except Unopenable:
            yield name, False
        else:
            yield name, True


def statement_box(victim: Victim, digest: str) -> str:
    """The sender's box key, from the attestation that the recording names."""
    found = victim.rows("SELECT statement FROM attestations WHERE digest = ?", digest)
    if not found:
        return ""
    body = statements.decode(statements.text_bytes(json.loads(found[0][0])["b"]))
    return str(body["sbox"])
