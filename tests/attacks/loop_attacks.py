"""Attacks on the attention and the money of a peer's user, by a member whose agent obeys no rule."""

import os
from typing import Any

from claudemesh.peer.journal.held import MAX_HELD_PER_SENDER
from claudemesh.protocol.loops import Budgets
from tests.attacks.worlds import Outcome, Victim, World

USUAL = Budgets()
ROOT = "ee" * 16


async def _deliver(world: World, bob: Victim, text: str, **fields: Any) -> None:
    await world.deliver(bob, world.owner.write(bob.id, bob.kid, text, **fields))


async def _reasons(bob: Victim) -> frozenset[str]:
    return frozenset(held.reason for held in await bob.peer.held())


async def talk_on_and_on(world: World) -> Outcome:
    """Each answer is one further than the last one, far past what needs nobody."""
    bob = await world.victim("bob")

    for hop in range(USUAL.hops + 4):
        await _deliver(world, bob, f"answer {hop}", root=ROOT, hop=hop)

    return Outcome(len(bob.texts) > USUAL.hops + 1, await _reasons(bob))


async def claim_an_absurd_distance(world: World) -> Outcome:
    """The largest number that a header holds, with a root and without."""
    bob = await world.victim("bob")

    await _deliver(world, bob, "far beyond", root=ROOT, hop=2**53 - 1)
    await _deliver(world, bob, "as far", hop=2**53 - 1)

    return Outcome(bool(bob.texts), await _reasons(bob))


async def say_the_same_again(world: World) -> Outcome:
    """One text under ten ids, each time as a new beginning."""
    bob = await world.victim("bob")

    for _ in range(10):
        own = os.urandom(16).hex()
        await _deliver(world, bob, "pay attention", id=own, root=own, hop=0)

    return Outcome(bob.texts.count("pay attention") > 1, await _reasons(bob))


async def begin_anew_each_time(world: World) -> Outcome:
    """A loop that forgets where it came from: each message another text and another beginning."""
    bob = await world.victim("bob")

    for number in range(USUAL.pair + 5):
        own = os.urandom(16).hex()
        await _deliver(world, bob, f"news {number}", id=own, root=own, hop=0)

    return Outcome(len(bob.texts) > USUAL.pair, await _reasons(bob))


async def come_back_after_a_refusal(world: World) -> Outcome:
    """What a person refused is sent again, under the same id and a new counter, when the budget is larger."""
    bob = await world.victim("bob")
    again = {"id": "cc" * 16, "root": ROOT, "hop": USUAL.hops + 1}
    await _deliver(world, bob, "take it", **again)
    await bob.peer.refuse_held("cc" * 16)
    await bob.peer.set_budget("hops", 100)

    await _deliver(world, bob, "take it", **again)

    return Outcome("take it" in bob.texts or bool(await bob.peer.held()), bob.codes)


async def be_taken_twice(world: World) -> Outcome:
    """A held message is sent again under the same id while it waits, and once more when it was released."""
    bob = await world.victim("bob")
    again = {"id": "cc" * 16, "root": ROOT, "hop": USUAL.hops + 1}
    await _deliver(world, bob, "take it", **again)
    await bob.peer.set_budget("hops", 100)

    await _deliver(world, bob, "take it", **again)
    early = "take it" in bob.texts
    await bob.peer.release_held("cc" * 16)
    await _deliver(world, bob, "take it", **again)

    return Outcome(early or bob.texts.count("take it") != 1, bob.codes)


async def fill_what_a_person_reads(world: World) -> Outcome:
    """More messages that must wait than anybody decides about."""
    bob = await world.victim("bob")

    for number in range(MAX_HELD_PER_SENDER + 5):
        await _deliver(world, bob, f"wait {number}", root=ROOT, hop=USUAL.hops + 1)

    return Outcome(len(await bob.peer.held()) > MAX_HELD_PER_SENDER, bob.codes)


async def reach_an_agent_in_a_pause(world: World) -> Outcome:
    """Urgent, as a person, as a beginning: nothing is put before an agent in a paused mesh."""
    bob = await world.victim("bob")
    await bob.peer.grant(world.owner.id, "now")
    await bob.peer.pause()

    letters = [
        world.owner.write(bob.id, bob.kid, "urgent", prio="now"),
        world.owner.write(bob.id, bob.kid, "of a person"),
        world.owner.write(bob.id, bob.kid, "of an agent", root=ROOT, hop=0),
    ]
    await world.deliver(bob, *letters, checked=False)
    await world.until(lambda: len(bob.rows("SELECT 1 FROM inbox")) == len(letters), "they are in bob's inbox")
    await world.chance(lambda: bob.texts, within_s=1)

    return Outcome(bool(bob.texts), bob.codes)
