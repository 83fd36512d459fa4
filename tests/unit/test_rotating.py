"""Slots are sealed on every core, and stand in the order of the members all the same (docs/spec/channels.md §3)."""

import pytest

from claudemesh.peer import rotating
from claudemesh.types import BoxId


@pytest.mark.parametrize("count", [0, 1, rotating.MANY_BOXES - 1, rotating.MANY_BOXES, rotating.MANY_BOXES + 1, 1_000])
def test_slots_keep_the_order_of_the_members(count: int) -> None:
    """A slot in another place would be another member's, and open for nobody."""
    boxes = [BoxId(f"{number:064x}") for number in range(count)]

    assert list(rotating._on_every_core(lambda box: f"slot of {box}", boxes)) == [f"slot of {box}" for box in boxes]
