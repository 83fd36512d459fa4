"""Attacks on the opening of a link: a phishing host that relays, other keys, other addresses."""

import msgspec

from claudemesh.crypto.statements import Statement
from claudemesh.protocol.handshake import make_challenge
from tests.attacks.hostile_broker import HostileBroker
from tests.attacks.hostile_link import HostileLink
from tests.attacks.worlds import Outcome, Victim, World


async def relay_the_real_brokers_challenge(world: World) -> Outcome:
    """A18: the peer dials a phishing host, which shows it what the real broker signed for its own address."""
    bob = await world.victim("bob")
    async with HostileBroker.listening(world.clock) as phishing:
        phishing.lies.challenge = lambda link: make_challenge(
            world.broker.key, world.broker.url, bytes(32), world.clock()
        )
        return await _dial_phishing(world, bob, phishing)


async def answer_with_another_key(world: World) -> Outcome:
    """A18: the phishing host signs for the right address, with a key of its own."""
    bob = await world.victim("bob")
    async with HostileBroker.listening(world.clock) as phishing:
        return await _dial_phishing(world, bob, phishing)


async def lend_the_real_key_a_name(world: World) -> Outcome:
    """A18: the statement names the real broker's key and is signed by another."""
    bob = await world.victim("bob")
    async with HostileBroker.listening(world.clock) as phishing:

        def lend(link: HostileLink) -> Statement:
            own = make_challenge(phishing.key, phishing.url, bytes(32), world.clock())
            return Statement(
                own.b.replace(phishing.key.public, world.broker.key.public), world.broker.key.public, own.s
            )

        phishing.lies.challenge = lend
        return await _dial_phishing(world, bob, phishing)


async def _dial_phishing(world: World, bob: Victim, phishing: HostileBroker) -> Outcome:
    """Send bob to the phishing host, as a poisoned name server would; success is that he says anything to it."""
    phishing.meshes = world.broker.meshes
    await bob.stop()
    path = bob.directory / "config.json"
    config = msgspec.json.decode(path.read_bytes())
    config["meshes"][0]["broker"]["url"] = phishing.url
    path.write_bytes(msgspec.json.encode(config))
    bob.events.clear()
    await bob.start()
    await world.until(lambda: len(phishing.links) >= 2, "bob dials the phishing host again")
    spoke = any(link.heard for link in phishing.links)
    return Outcome(spoke, frozenset(bob.link_errors[:1]))
