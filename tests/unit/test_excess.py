"""Whom a listener cuts off when connections together hold too much (docs/spec/limits.md §2)."""

from hypothesis import given
from hypothesis import strategies as st

from claudemesh.transport.excess import largest


@given(st.dictionaries(st.integers(), st.integers(0, 1_000)), st.integers(0, 5_000))
def test_the_largest_go_and_no_more_than_have_to(held: dict[int, int], allowed: int) -> None:
    """What stays fits; with the last of those that go it would not; nobody goes before one that holds more."""
    gone = largest(held, allowed)
    stays = sum(held.values()) - sum(held[one] for one in gone)

    assert stays <= allowed
    assert not gone or stays + held[gone[-1]] > allowed
    assert all(held[one] >= held[other] for one in gone for other in held if other not in gone)
