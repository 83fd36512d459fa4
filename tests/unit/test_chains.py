"""Where a message stands in its conversation: every row of the table of docs/spec/holding.md §1."""

from typing import Any

import pytest

from claudemesh.protocol import chains
from claudemesh.protocol.chains import MAX_HOP, Cause, Chain
from claudemesh.types import MessageId

FIRST, SECOND, THIRD = (MessageId(digit * 32) for digit in "123")


def test_an_agents_message_that_nothing_caused_begins_a_conversation() -> None:
    """Its own id, and no answer before it."""
    assert chains.begin(FIRST) == Chain(FIRST, 0)


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (Cause(SECOND, Chain(FIRST, 0)), Chain(FIRST, 1)),
        (Cause(SECOND, Chain(FIRST, 7)), Chain(FIRST, 8)),
        (Cause(SECOND, None), Chain(SECOND, 1)),
        (Cause(SECOND, Chain(FIRST, MAX_HOP)), Chain(FIRST, MAX_HOP)),
    ],
)
def test_an_answer_is_one_further_than_what_it_answers(cause: Cause, expected: Chain) -> None:
    """What a person wrote is the beginning itself; the count ends where a header may not go further."""
    assert chains.answer(cause) == expected


def test_of_several_causes_the_deepest_counts() -> None:
    """A loop does not get younger by being shown beside a person's message."""
    old, young, person = Cause(SECOND, Chain(FIRST, 5)), Cause(THIRD, Chain(THIRD, 0)), Cause(FIRST, None)

    assert chains.deepest([person, young, old]) == old
    assert chains.deepest([person, young]) == young
    assert chains.deepest([person]) == person
    assert chains.deepest([]) is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"root": FIRST, "hop": 3}, Chain(FIRST, 3)),
        ({"root": FIRST}, Chain(FIRST, 0)),
        ({"hop": 3}, Chain(SECOND, 3)),
        ({"root": FIRST, "hop": -1}, Chain(FIRST, 0)),
        ({"root": FIRST, "hop": 2**53 - 1}, Chain(FIRST, MAX_HOP)),
    ],
)
def test_a_header_is_read_as_the_chain_that_it_states(fields: dict[str, Any], expected: Chain | None) -> None:
    """None stated is a person's; half of one is completed, and a figure that makes no sense is bounded."""
    assert chains.read({"id": SECOND, **fields}) == expected
