"""What a peer cannot do to the sessions of agents of another one; and that each attack works once its rule is gone."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.attacks import last_hop_attacks as attacks
from tests.attacks import last_hop_sabotages as sabotages
from tests.attacks.last_hop_attacks import Scene, last_hop
from tests.attacks.sabotages import Sabotage

Attack = Callable[[Scene], Awaitable[bool]]

ROWS: list[tuple[Attack, Sabotage]] = [
    (attacks.be_shown_by_every_way_at_once, sabotages.offers_are_not_recorded),
    (attacks.have_another_session_confirm, sabotages.anybody_confirms),
    (attacks.count_as_read_by_the_head, sabotages.a_part_is_the_whole),
    (attacks.count_as_read_after_a_crash, sabotages.taken_is_handed),
    (attacks.be_shown_again_after_a_crash, sabotages.offers_are_not_recorded),
    (attacks.interrupt_without_leave, sabotages.everybody_interrupts),
    (attacks.imitate_a_block, sabotages.bodies_stand_at_the_margin),
    (attacks.wake_with_an_acknowledgement, sabotages.acknowledgements_count),
]


@pytest.mark.parametrize("attack", [attack for attack, _ in ROWS], ids=lambda one: one.__name__)
async def test_an_attack_on_the_last_hop_fails(attack: Attack, tmp_path: Path) -> None:
    """Nothing is shown twice, stated without evidence, or more urgent than it may be."""
    async with last_hop(tmp_path) as scene:
        succeeded = await attack(scene)

    assert not succeeded


@pytest.mark.parametrize(("attack", "sabotage"), ROWS, ids=[one.__name__ for one, _ in ROWS])
async def test_it_succeeds_without_its_rule(attack: Attack, sabotage: Sabotage, tmp_path: Path) -> None:
    """Otherwise its failure would prove nothing."""
    with sabotage():
        async with last_hop(tmp_path) as scene:
            succeeded = await attack(scene)

    assert succeeded
