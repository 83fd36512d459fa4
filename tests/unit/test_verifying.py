"""Signatures of a long log are verified ahead, and refused in their place (docs/spec/roster.md §5)."""

import pytest

from claudemesh.errors import BadSignature
from claudemesh.peer.verifying import verify_ahead
from claudemesh.protocol.roster import Entry, Roster, SignedEntry
from tests.rosters import Log

FORGED_AT = 40


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    log = Log()
    log.invite("alice", "many", uses=100)
    for index in range(70):
        log.admit("many", f"peer {index}")
    return log.entries


async def test_entries_keep_their_order_and_all_are_verified(entries: list[Entry]) -> None:
    ahead = await verify_ahead(entries)

    assert [one.entry for one in ahead if isinstance(one, SignedEntry)] == entries


async def test_a_forged_entry_is_refused_in_its_place_after_those_before_it(entries: list[Entry]) -> None:
    """A broker that forges one admission of many loses that one and what follows, and nothing of what precedes."""
    honest = entries[FORGED_AT]
    forged = Entry(honest.b, honest.s | {next(iter(honest.s)): "ab" * 64})
    roster = Roster()

    ahead = await verify_ahead([*entries[:FORGED_AT], forged, *entries[FORGED_AT + 1 :]])

    for one in ahead[:FORGED_AT]:
        roster.apply(one)
    with pytest.raises(BadSignature):
        roster.apply(ahead[FORGED_AT])
    assert roster.seq == FORGED_AT - 1


async def test_few_entries_are_left_to_the_roster(entries: list[Entry]) -> None:
    assert await verify_ahead(entries[:3]) == entries[:3]
