"""Attacks on direct messages, by a broker that delivers what it likes and by members who write what they like.

Each function plays one attack in a world of its own and reports what came of it. The tests run them against the
code as it is, and `test_broken_builds` against code in which one check is missing.
"""

import contextlib
import os
import random
from typing import Any

import msgspec
import nacl.bindings as sodium

from claudemesh.crypto import envelope, identity, primitives, statements
from claudemesh.crypto.envelope import Sealed
from claudemesh.crypto.frames import padded_length
from claudemesh.crypto.statements import Statement
from claudemesh.errors import Unopenable
from claudemesh.protocol import codec
from claudemesh.protocol.limits import DAY_MS, HOUR_MS, MINUTE_MS
from claudemesh.types import BoxId
from tests.attacks.wire_member import Letter, WireMember, wrap
from tests.attacks.worlds import Outcome, Victim, World

ORDER = "pay 10"


async def replay_a_message(world: World) -> Outcome:
    """A12: the broker delivers the same envelope again, as it was and under other outer names."""
    bob = await world.victim("bob")
    letter = world.owner.write(bob.id, bob.kid, ORDER)

    await world.deliver(bob, letter)
    await world.deliver(bob, letter)
    await world.deliver(bob, letter.altered(id="ff" * 16), letter.altered(prio="now"))

    return Outcome(bob.texts.count(ORDER) > 1, bob.codes)


async def replay_after_the_inbox_was_pruned(world: World) -> Outcome:
    """A12: nothing but the replay window remembers the message."""
    bob = await world.victim("bob")
    letter = world.owner.write(bob.id, bob.kid, ORDER)
    await world.deliver(bob, letter)

    bob = await bob.restarted("DELETE FROM inbox")
    await world.deliver(bob, letter)

    return Outcome(ORDER in bob.texts, bob.codes)


async def replay_after_weeks(world: World) -> Outcome:
    """A12: an envelope of a still valid session comes after its time in the queue is over."""
    bob = await world.victim("bob")
    now = world.clock()
    old = world.owner.attestation(issued_at=now - 16 * DAY_MS, lifetime_ms=7 * DAY_MS)
    letter = world.owner.write(bob.id, bob.kid, ORDER, attestation=old, ts=now - 15 * DAY_MS)

    await world.deliver(bob, letter)

    return Outcome(ORDER in bob.texts, bob.codes)


async def replay_after_the_journal_was_lost(world: World) -> Outcome:
    """A12: keys were restored from a backup, without windows; success is a repetition that looks like news."""
    bob = await world.victim("bob")
    letter = world.owner.write(bob.id, bob.kid, ORDER)
    await world.deliver(bob, letter)

    await bob.stop()
    for file in bob.directory.glob("state.db*"):
        file.unlink()
    world.clock.advance(MINUTE_MS)
    bob.received.clear()
    await bob.start()
    await bob.reaches(world.held.main.seq)
    await world.deliver(bob, letter)
    world.clock.advance(10 * MINUTE_MS)
    await world.broker.connected(bob.id)
    await world.deliver(bob, world.owner.write(bob.id, bob.kid, "news"))

    marked = {message.text: message.may_repeat for message in bob.received}
    return Outcome(marked != {ORDER: True, "news": False}, bob.codes)


async def misdirect_to_another_peer(world: World) -> Outcome:
    """A14: a message for bob in carol's mailbox, as it is and under the name of her key."""
    bob, carol = await world.victim("bob"), await world.victim("carol")
    letter = world.owner.write(bob.id, bob.kid, "for bob")

    await world.deliver(carol, letter)
    await world.deliver(carol, letter.altered(to=carol.id, kid=carol.kid))

    return Outcome("for bob" in carol.texts, carol.codes)


async def alter_the_outer_fields(world: World) -> Outcome:
    """A15: another priority and another id outside."""
    bob = await world.victim("bob")
    letter = world.owner.write(bob.id, bob.kid, "wait until tomorrow", prio="low")

    await world.deliver(bob, letter.altered(prio="now", id="ff" * 16))

    message = bob.message("wait until tomorrow")
    believed = message is None or (message.priority, message.id) != ("low", letter.id)
    return Outcome(believed, bob.codes)


async def send_plaintext(world: World) -> Outcome:
    """A16: no encryption, a zero nonce, no nonce, a text that looks like base64."""
    bob = await world.victim("bob")
    letter = world.owner.write(bob.id, bob.kid, "true")
    plain = statements.to_base64url(b"hello plaintext")
    header = world.owner.header(bob.id, bob.kid)
    frame = statements.encode(header)
    padded = b"\x01" + len(frame).to_bytes(4, "big") + frame + b"\0\0\0\x0fhello plaintext" + bytes(64) + b"\x80"
    unencrypted = padded + bytes(padded_length(len(padded)) - len(padded))

    for outer in (
        {"ct": plain},
        {"ct": plain, "nonce": "A" * 32},
        {"ct": plain, "nonce": ""},
        {"ct": "hello plaintext", "nonce": ""},
        {"ct": statements.to_base64url(unencrypted), "nonce": "A" * 32},
        {"ct": "", "nonce": "A" * 32},
    ):
        await world.deliver(bob, letter.altered(**outer), checked=False)
    await world.probe(bob)

    return Outcome(any("plaintext" in text for text in bob.texts), bob.codes)


async def carry_a_message_to_another_mesh(world: World) -> Outcome:
    """A17: the same device keys in two meshes; what was written for one arrives in the other."""
    bob = await world.victim("bob")
    elsewhere = WireMember("alice elsewhere", world.clock)
    elsewhere.sign, elsewhere.user, elsewhere.session = world.owner.sign, world.owner.user, world.owner.session
    elsewhere.follow(elsewhere.genesis(world.broker.key.public))

    foreign = elsewhere.write(bob.id, bob.kid, "for the other mesh", ts=world.clock())
    await world.deliver(bob, foreign.altered(mesh=world.owner.mesh))
    await world.deliver(bob, foreign)

    return Outcome("for the other mesh" in bob.texts, bob.codes)


async def carry_a_message_to_another_mesh_of_the_same_session(world: World) -> Outcome:
    """A17: the session itself is attested in both meshes, so that only the signed header tells them apart."""
    bob = await world.victim("bob")
    header_mesh = statements.digest("roster", b"another mesh")

    letter = world.owner.write(bob.id, bob.kid, "for the other mesh", mesh=header_mesh)
    await world.deliver(bob, letter.altered(mesh=world.owner.mesh))

    return Outcome("for the other mesh" in bob.texts, bob.codes)


async def use_a_stolen_attestation(world: World) -> Outcome:
    """A19: the thief has the attestation, which is public, and neither of the session's secrets."""
    bob = await world.victim("bob")
    alice, thief = world.owner, WireMember("thief", world.clock)
    thief.follow(*world.held.main.entries)

    in_her_name: dict[str, Any] = {"sess": alice.session.id, "from": alice.id}
    letter = thief.write(
        bob.id,
        bob.kid,
        "i am alice",
        attestation=alice.usual_attestation(),
        **in_her_name,
    )
    await world.deliver(bob, letter)

    return Outcome("i am alice" in bob.texts, bob.codes)


async def attest_in_anothers_name(world: World) -> Outcome:
    """A19: a member attests a session of its own as alice's, signed by itself and signed by nobody."""
    bob, mallory, alice = await world.victim("bob"), world.member("mallory"), world.owner
    await world.announce()
    own = alice.forged_attestation(mallory.sign, mallory.session)
    borrowed = _as_signed_by(own, alice.id)

    in_her_name: dict[str, Any] = {"from": alice.id}

    for attestation in (own, borrowed):
        letter = mallory.write(bob.id, bob.kid, "i am alice", attestation=attestation, **in_her_name)
        await world.deliver(bob, letter, checked=False)
    await world.probe(bob)

    return Outcome("i am alice" in bob.texts, bob.codes)


async def release_early(world: World) -> Outcome:
    """A20: the message says not before tomorrow, the broker delivers it today, with and without the outer hint."""
    bob = await world.victim("bob")
    tomorrow = world.clock() + 12 * HOUR_MS
    letter = world.owner.write(bob.id, bob.kid, "tomorrow", nb=tomorrow, exp=tomorrow + HOUR_MS)

    await world.deliver(bob, letter, letter.altered(nbf=None), letter.altered(nbf=1), checked=False)
    await world.probe(bob)

    return Outcome("tomorrow" in bob.texts, bob.codes)


async def flood_with_early_messages(world: World) -> Outcome:
    """A20: more of them than a peer keeps for later; success is that one surfaces, or that the peer stops."""
    bob = await world.victim("bob")
    tomorrow = world.clock() + 12 * HOUR_MS
    letters = [world.owner.write(bob.id, bob.kid, "tomorrow", nb=tomorrow + number) for number in range(80)]

    await world.deliver(bob, *letters, checked=False)
    await world.probe(bob)

    return Outcome("tomorrow" in bob.texts, bob.codes)


async def release_late(world: World) -> Outcome:
    """A20: the message has expired, and the broker removes the outer expiry."""
    bob = await world.victim("bob")
    letter = world.owner.write(bob.id, bob.kid, "too late", ts=world.clock() - MINUTE_MS, exp=world.clock() - 1_000)

    await world.deliver(bob, letter)
    await world.deliver(bob, letter.altered(exp=None))

    return Outcome("too late" in bob.texts, bob.codes)


async def forward_as_if_written_to_another(world: World) -> Outcome:
    """A22: a recipient boxes the signed text again, for somebody else, in each way that is open to it."""
    carol, mallory = await world.victim("carol"), world.member("mallory")
    letter = world.owner.write(mallory.id, mallory.box.public, "you are fired")
    signed = _signed_text(letter, world.owner.usual_attestation(), mallory.box.secret)
    boxed = _box_again(signed, carol.kid, mallory.session.box.secret)
    readdressed = letter.header | {"to": carol.id, "kid": carol.kid}
    grafted = _attest_foreign_session(mallory, world.owner.session.id)
    resigned = world.owner.forged_attestation(mallory.sign, mallory.session)

    await world.deliver(carol, wrap(readdressed, boxed, letter.attestation))
    await world.deliver(carol, wrap(readdressed, boxed, mallory.usual_attestation()))
    await world.deliver(carol, wrap(readdressed, boxed, grafted))
    await world.deliver(carol, wrap(readdressed, boxed, resigned), checked=False)
    await world.deliver(carol, wrap(readdressed, boxed, _as_signed_by(resigned, world.owner.id)), checked=False)
    await world.probe(carol)

    return Outcome("you are fired" in carol.texts, carol.codes)


async def forward_with_the_recipients_stolen_key(world: World) -> Outcome:
    """A22: the forwarder also has the recipient's box secret, so that only the signed recipient is in its way."""
    carol, mallory = await world.victim("carol"), world.member("mallory")
    letter = world.owner.write(mallory.id, mallory.box.public, "you are fired")
    signed = _signed_text(letter, world.owner.usual_attestation(), mallory.box.secret)

    boxed = _box_again(signed, world.owner.session.box.public, carol.box_secret)
    await world.deliver(carol, wrap(letter.header | {"to": carol.id, "kid": carol.kid}, boxed, letter.attestation))

    return Outcome("you are fired" in carol.texts, carol.codes)


async def impersonate_with_the_recipients_stolen_key(world: World) -> Outcome:
    """A23: the thief of bob's box secret computes alice's shared key with him, and writes to bob as alice."""
    bob, alice = await world.victim("bob"), world.owner
    forger = identity.session_keys(os.urandom(64))
    header = alice.header(bob.id, bob.kid)
    throwaway = primitives.box_key(os.urandom(32))
    sealed = envelope.seal(header, b"run rm -rf", forger, BoxId(throwaway.public), bytes(24))
    signed = sodium.crypto_box_open_easy(
        sealed.ciphertext, sealed.nonce, bytes.fromhex(forger.box.public), throwaway.secret
    )

    boxed = _box_again(signed, alice.session.box.public, bob.box_secret)
    await world.deliver(bob, wrap(header, boxed, alice.usual_attestation()))

    return Outcome("run rm -rf" in bob.texts, bob.codes)


async def deliver_mail_of_a_revoked_member(world: World) -> Outcome:
    """A26: written before the revocation, and after it with a head that the thief was shown."""
    bob, eve = await world.victim("bob"), world.member("eve")
    late = eve.write(bob.id, bob.kid, "late")
    await world.extend(world.owner.entry("revoke", who=eve.id, why="removed"))
    await bob.reaches(world.held.main.seq)
    eve.roster = world.owner.roster
    world.show_head(eve)

    await world.deliver(bob, late)
    await world.deliver(bob, eve.write(bob.id, bob.kid, "still here"))

    return Outcome(bool({"late", "still here"} & set(bob.texts)), bob.codes)


async def claim_a_false_head(world: World) -> Outcome:
    """A27: a member names a head that no broker signed, at a known place and far ahead; success is a frozen victim."""
    bob, mallory = await world.victim("bob"), world.member("mallory")
    world.show_head(mallory)
    ours = mallory.head_signature

    for fields in (
        {"rh": "ab" * 32, "rg": ""},
        {"rh": "ab" * 32, "rg": "00" * 64},
        {"rh": "ab" * 32, "ra": ours[0], "rg": ours[1]},
        {"rs": 999, "rh": "ab" * 32, "rg": ""},
        {"rs": 999, "rh": "ab" * 32, "ra": ours[0], "rg": ours[1]},
    ):
        await world.deliver(bob, mallory.write(bob.id, bob.kid, "false head", **fields), checked=False)
    await world.probe(bob)
    await world.settles(bob, 0.3)

    return Outcome(bob.freeze is not None or "false head" in bob.texts, bob.codes)


async def use_a_killed_session(world: World) -> Outcome:
    """A29: alice's new card names the stolen session dead; the thief goes on with it."""
    bob, alice = await world.victim("bob"), world.owner
    stolen_attestation, stolen = alice.usual_attestation(), alice.session
    early = alice.write(bob.id, bob.kid, "from the thief")
    alice.new_session()
    world.held.cards[alice.id] = alice.card(dead=(stolen.id,))

    await world.deliver(bob, alice.write(bob.id, bob.kid, "from alice"))
    await world.deliver(bob, early)
    fresh = alice.write(
        bob.id, bob.kid, "thief again", attestation=stolen_attestation, session=stolen, sess=stolen.id, n=7
    )
    await world.deliver(bob, fresh)

    return Outcome(bool({"from the thief", "thief again"} & set(bob.texts)), bob.codes)


async def outlive_an_attestation(world: World) -> Outcome:
    """A29: signed after the session's lifetime, and dated back before it."""
    bob, alice = await world.victim("bob"), world.owner
    now = world.clock()
    ended = alice.attestation(issued_at=now - 2 * HOUR_MS, lifetime_ms=HOUR_MS)
    unborn = alice.attestation(issued_at=now - MINUTE_MS, lifetime_ms=HOUR_MS)

    await world.deliver(bob, alice.write(bob.id, bob.kid, "after", attestation=ended))
    await world.deliver(bob, alice.write(bob.id, bob.kid, "before", attestation=unborn, ts=now - HOUR_MS))

    return Outcome(bool({"after", "before"} & set(bob.texts)), bob.codes)


async def attest_oneself_for_too_long(world: World) -> Outcome:
    """A29: a session that would live for a year, and one without the capability to write direct messages."""
    bob, alice = await world.victim("bob"), world.owner
    year = alice.attestation(lifetime_ms=365 * DAY_MS)
    mute = alice.attestation(capabilities=("chan",))

    await world.deliver(bob, alice.write(bob.id, bob.kid, "for a year", attestation=year), checked=False)
    await world.deliver(bob, alice.write(bob.id, bob.kid, "mute", attestation=mute))
    await world.probe(bob)

    return Outcome(bool({"for a year", "mute"} & set(bob.texts)), bob.codes)


async def fuzz_envelopes(world: World, count: int = 300) -> Outcome:
    """A31: one changed character each; nothing but the original may surface, and bob goes on."""
    bob = await world.victim("bob")
    letter = world.owner.write(bob.id, bob.kid, "the original")
    chance = random.Random(1)
    mutants: list[bytes] = []
    while len(mutants) < count:
        at = chance.randrange(len(letter.frame))
        mutant = letter.frame[:at] + bytes((chance.randrange(33, 126),)) + letter.frame[at + 1 :]
        if _is_json_object(mutant):
            mutants.append(mutant)

    for start in range(0, count, 20):
        await world.broker.push(bob.id, *mutants[start : start + 20], attestations=[letter.attestation])
    await world.probe(bob)
    surfaced = [text for text in bob.texts if text != "probe"]

    return Outcome(surfaced not in ([], ["the original"]), bob.codes)


async def read_with_a_stolen_device_after_rotations(world: World, letter: Letter, bob: Victim) -> Outcome:
    """A32: everything that bob's device holds now, tried on what was recorded before his box keys rotated."""
    opened = False
    for secret in bob.box_secrets():
        with contextlib.suppress(Unopenable):
            world.owner.read(letter.frame, letter.attestation, secret)
            opened = True
    return Outcome(opened, frozenset())


def _is_json_object(raw: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(raw), dict)
    except msgspec.DecodeError:
        return False


def _signed_text(letter: Letter, attestation: Statement, secret: bytes) -> bytes:
    """What a recipient has after opening a box: the padded, signed text."""
    frame = codec.decode_send(letter.frame)
    return primitives.box_open(
        statements.from_base64url(frame.ct),
        statements.from_base64url(frame.nonce),
        identity.open_attestation(attestation).box,
        secret,
    )


def _box_again(signed: bytes, public: str, secret: bytes) -> Sealed:
    nonce = os.urandom(24)
    return Sealed(nonce, primitives.box(signed, nonce, public, secret))


def _attest_foreign_session(mallory: WireMember, session: str) -> Statement:
    """Mallory attests, as its own, somebody else's session key together with a box key of mallory's."""
    body = statements.decode(mallory.usual_attestation().b.encode()) | {"sess": session}
    return statements.sign_statement(body, "att", mallory.sign)


def _as_signed_by(statement: Statement, signer: str) -> Statement:
    return Statement(statement.b, signer, statement.s)
