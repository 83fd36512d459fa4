"""A frozen mesh is resolved by a person: both branches are shown, one is trusted, and the proof stays."""

from typing import NamedTuple

import pytest

from claudemesh.errors import AddressError, RosterConflict, UsageError
from tests.attacks import roster_attacks
from tests.attacks.wire_member import WireMember
from tests.attacks.worlds import Victim, World

KEPT = "SELECT code, trusted FROM freeze_decisions"


class Fork(NamedTuple):
    """Bob on the owner's branch, Carol and Dora on the other one; a message from the other side froze Bob and Carol."""

    bob: Victim
    carol: Victim
    dora: WireMember


async def forked(world: World) -> Fork:
    """Let the broker sign two histories, and a message cross each way."""
    bob, carol = await world.victim("bob"), await world.victim("carol")
    insider, dora, edgar = world.member("insider"), world.member("dora"), world.member("edgar")
    await world.announce()
    world.broker.hold_mail = True  # else a profile of Carol's, on its way since, freezes Bob again after he has decided
    other = world.held.views[carol.id] = world.held.main.copy()
    other.append(insider.entry_on(other.roster, "chan", chan="ab" * 16, kind="group"))
    await world.extend(world.owner.entry("revoke", who=insider.id, why="stolen"))
    for member, view in ((dora, other), (edgar, world.held.main)):
        member.follow(*view.entries[member.roster.seq + 1 :])
        member.take_head(view.signed_head(world.broker.key, world.clock()))
    await bob.reaches(world.held.main.seq)
    await carol.reaches(other.seq)
    await world.deliver(bob, dora.write(bob.id, bob.kid, "from the other branch"), checked=False)
    await world.deliver(carol, edgar.write(carol.id, carol.kid, "from the owner's branch"), checked=False)
    await frozen(world)
    return Fork(bob, carol, dora)


async def frozen(world: World) -> None:
    """Wait until the peers themselves know what stands in their journals."""
    await world.until(lambda: all(victim.peer.frozen for victim in world.victims), "everybody is frozen")


async def test_both_branches_are_shown_with_who_is_on_them(theatre: World) -> None:
    """Ours first, with who signed it; the other one with the peer whose message exposed it."""
    bob, carol, dora = await forked(theatre)

    shown = await bob.peer.heads()

    assert (shown.frozen, shown.head) == ("fork", theatre.held.main.roster.head)
    ours, theirs = shown.branches
    assert (ours.is_own, theirs.is_own) == (True, False)
    assert ours.head == bob.peer.history()[-1].head
    assert bob.peer.address_of(theatre.owner.id) in ours.authors
    assert theirs.head == carol.peer.history()[-1].head
    assert bob.peer.address_of(dora.id) in theirs.followers
    assert ours.broker == theirs.broker == theatre.broker.key.public


async def test_the_branch_of_the_owner_is_suggested_once_the_owner_was_heard(theatre: World) -> None:
    """Not before: nobody's word but the owner's own tells where the owner is."""
    bob, _, _ = await forked(theatre)
    assert (await bob.peer.heads()).suggested is None

    await theatre.deliver(bob, theatre.owner.write(bob.id, bob.kid, "I removed the insider"))

    assert (await bob.peer.heads()).suggested == theatre.held.main.roster.head


async def test_trusting_our_own_branch_lets_us_send_and_keeps_the_proof(theatre: World) -> None:
    """Who is on the other branch is refused from now on, without freezing the mesh again."""
    bob, _, dora = await forked(theatre)

    branch, reopen = await bob.peer.trust((await bob.peer.heads()).branches[0].head[:16])

    assert (branch.is_own, reopen, bob.peer.frozen) == (True, False, None)
    assert bob.rows(KEPT) == [("fork", branch.head)]
    await bob.peer.send(theatre.owner.id, "we go on")
    await theatre.deliver(bob, dora.write(bob.id, bob.kid, "do you hear me?"))
    await theatre.until(lambda: "other_branch" in bob.codes, "the other branch is refused")
    assert bob.freeze is None


async def test_a_decision_is_about_the_peers_that_were_seen(theatre: World) -> None:
    """Another peer that turns out to be on another branch is news, and freezes."""
    fred = theatre.member("fred")
    bob, carol, _ = await forked(theatre)
    await bob.peer.trust(theatre.held.main.roster.head)
    other = theatre.held.views[carol.id]
    fred.follow(*other.entries[fred.roster.seq + 1 :])
    fred.take_head(other.signed_head(theatre.broker.key, theatre.clock()))

    await theatre.deliver(bob, fred.write(bob.id, bob.kid, "from the other branch"), checked=False)
    await theatre.settles(bob)

    assert bob.freeze == "fork"


async def test_trusting_the_other_branch_fetches_the_roster_anew(theatre: World) -> None:
    """The replica is dropped, and one that does not contain the trusted head is not believed."""
    bob, carol, _ = await forked(theatre)
    wanted = bob.peer.history()[-1].head

    branch, reopen = await carol.peer.trust(wanted[:16])
    del theatre.held.views[carol.id]
    await carol.restarted()

    assert (branch.is_own, reopen) == (False, True)
    await fetched(theatre, carol)
    assert carol.freeze is None
    assert carol.peer.history()[-1].head == theatre.held.main.roster.head
    assert carol.rows(KEPT) == [("fork", wanted)]
    await carol.peer.send(bob.id, "on one branch again")


async def test_a_broker_that_goes_on_lying_freezes_whoever_trusted_the_other_branch(theatre: World) -> None:
    """The decision is a demand: a roster without that head is refused as a rollback."""
    bob, carol, _ = await forked(theatre)

    await carol.peer.trust(bob.peer.history()[-1].head)
    await carol.restarted()
    await theatre.until(lambda: carol.peer.frozen, "carol is frozen again")

    assert carol.freeze == "rollback"
    with pytest.raises(RosterConflict, match="frozen"):
        await carol.peer.send(bob.id, "no")


async def test_a_withheld_head_can_be_demanded_or_given_up(theatre: World) -> None:
    """Either way the person decides; a broker that still hides it cannot use the decision against anybody else."""
    await roster_attacks.withhold_a_revocation(theatre)
    await frozen(theatre)
    (bob,) = theatre.victims

    shown = await bob.peer.heads()
    assert [branch.is_own for branch in shown.branches] == [True, False]
    del theatre.held.views[bob.id]
    branch, reopen = await bob.peer.trust(shown.branches[1].head)

    assert (branch.is_own, reopen) == (False, False)
    await bob.reaches(branch.seq)
    assert bob.freeze is None


async def test_nothing_is_decided_by_a_head_that_nobody_showed(theatre: World) -> None:
    """The words say what is wrong, and the mesh stays frozen."""
    await roster_attacks.rewrite_the_last_entry(theatre)
    await frozen(theatre)
    bob = theatre.victims[0]

    for head in ("00" * 32, "", (await bob.peer.heads()).head[:7]):
        with pytest.raises(AddressError, match="none of the heads"):
            await bob.peer.trust(head)
    assert bob.peer.frozen is not None


async def test_nothing_is_decided_without_a_freeze(theatre: World) -> None:
    """There is one history, and nothing to choose."""
    bob = await theatre.victim("bob")

    with pytest.raises(UsageError, match="not frozen"):
        await bob.peer.trust(theatre.held.main.roster.head)


async def fetched(world: World, victim: Victim) -> None:
    """Wait until a replica that was dropped is whole again."""
    query = "SELECT count(*) FROM roster_entries"
    await world.until(lambda: victim.rows(query)[0][0] == world.held.main.seq + 1, "the roster is fetched")
