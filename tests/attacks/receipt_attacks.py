"""Attacks on what a sender believes of its message: invented acceptance, delivery, and ends."""

import os

from claudemesh.crypto import primitives, statements
from claudemesh.crypto.statements import Statement
from claudemesh.protocol import messages
from tests.attacks.hostile_link import HostileLink
from tests.attacks.worlds import Outcome, Victim, World

TEXT = "has it arrived?"


def stage_of(sender: Victim, message_id: str) -> str:
    """How far the sender believes that its message came."""
    return str(sender.rows("SELECT stage FROM outbox WHERE message_id = ?", message_id)[0][0])


async def forge_an_acceptance(world: World) -> Outcome:
    """The broker's `accepted` is signed by another key, for another mesh, or not at all."""
    bob, carol = await world.victim("bob"), world.member("carol")
    await world.announce()
    usurper = primitives.signing_key(os.urandom(32))
    forms = iter(("other key", "no signature", "other mesh", "other context"))
    forged_bodies = []

    def forge(link: HostileLink, frame: messages.BrokerMessage) -> tuple[messages.BrokerMessage, ...]:
        if not isinstance(frame, messages.Accepted):
            return (frame,)
        body = statements.decode(frame.st.b.encode())
        match next(forms, "once more"):
            case "no signature":
                forged = Statement(frame.st.b, frame.st.k, "00" * 64)
            case "other mesh":
                forged = statements.sign_statement(body | {"mesh": "ab" * 32}, "accept", world.broker.key)
            case "other context":
                forged = statements.sign_statement(body, "sys", world.broker.key)
            case _:
                forged = statements.sign_statement(body, "accept", usurper)
        forged_bodies.append(body)
        return (messages.Accepted(st=forged),)

    await bob.settled()
    world.broker.lies.outgoing = forge
    sent = await bob.peer.send(carol.id, TEXT)
    await world.until(
        lambda: len(forged_bodies) > 4 or stage_of(bob, sent.id) != "queued", "all four were refused, or one believed"
    )

    return Outcome(stage_of(bob, sent.id) != "queued", frozenset(bob.link_errors[-1:]))


async def acknowledge_in_the_recipients_place(world: World) -> Outcome:
    """A third member claims delivery and reading of a message that was not for it."""
    bob, carol, mallory = await world.victim("bob"), world.member("carol"), world.member("mallory")
    await world.announce()
    world.broker.hold_mail = True
    sent = await bob.peer.send(carol.id, TEXT)
    await world.until(lambda: stage_of(bob, sent.id) == "accepted", "the broker accepts the message")
    rows = [{"id": sent.id, "st": stage, "at": world.clock()} for stage in ("delivered", "read")]

    receipt = mallory.write(bob.id, bob.kid, statements.encode({"v": 1, "r": rows}), ct="cm/receipt", prio="low")
    await world.deliver(bob, receipt)

    return Outcome(stage_of(bob, sent.id) != "accepted", bob.codes)


async def declare_a_message_dead(world: World) -> Outcome:
    """Somebody who is not the broker announces that a message expired, and that its recipient was revoked."""
    bob, carol = await world.victim("bob"), world.member("carol")
    await world.announce()
    world.broker.hold_mail = True
    sent = await bob.peer.send(carol.id, TEXT)
    await world.until(lambda: stage_of(bob, sent.id) == "accepted", "the broker accepts the message")
    usurper = primitives.signing_key(os.urandom(32))
    body = {"v": 1, "at": world.clock(), "mesh": world.owner.mesh, "who": carol.id, "id": sent.id}
    notices = [
        statements.sign_statement(body | {"ev": "expired"}, "sys", usurper),
        statements.sign_statement(body | {"ev": "revoked"}, "sys", carol.sign),
        Statement(statements.encode(body | {"ev": "expired"}).decode(), world.broker.key.public, "00" * 64),
        statements.sign_statement(body | {"ev": "expired", "mesh": "ab" * 32}, "sys", world.broker.key),
        statements.sign_statement(body | {"ev": "expired"}, "accept", world.broker.key),
    ]

    rows = [world.held.mail.add(bob.id, world.clock(), notice=notice) for notice in notices]
    numbers = await world.broker.push(bob.id, *rows)
    await world.broker.acknowledged(bob.id, *numbers)

    return Outcome(stage_of(bob, sent.id) != "accepted", bob.codes)


async def receipt_of_the_recipient(world: World) -> Outcome:
    """Control: the recipient's own receipt counts."""
    bob, carol = await world.victim("bob"), world.member("carol")
    await world.announce()
    world.broker.hold_mail = True
    sent = await bob.peer.send(carol.id, TEXT)
    await world.until(lambda: stage_of(bob, sent.id) == "accepted", "the broker accepts the message")
    rows = [{"id": sent.id, "st": "delivered", "at": world.clock()}]

    receipt = carol.write(bob.id, bob.kid, statements.encode({"v": 1, "r": rows}), ct="cm/receipt", prio="low")
    await world.deliver(bob, receipt)

    return Outcome(stage_of(bob, sent.id) == "delivered", bob.codes)
