"""An attack on somebody's attention that fails proves something only if it succeeds once the rule is gone."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.attacks import loop_attacks, loop_sabotages
from tests.attacks.worlds import Outcome, World, fresh, world

Attack = Callable[[World], Awaitable[Outcome]]
Sabotage = Callable[[], AbstractContextManager[None]]

LOOPS: list[tuple[Sabotage, Attack]] = [
    (loop_sabotages.nothing_is_judged, loop_attacks.talk_on_and_on),
    (loop_sabotages.chains_are_not_read, loop_attacks.claim_an_absurd_distance),
    (loop_sabotages.nothing_is_remembered, loop_attacks.say_the_same_again),
    (loop_sabotages.nothing_is_remembered, loop_attacks.begin_anew_each_time),
    (loop_sabotages.decisions_are_forgotten, loop_attacks.come_back_after_a_refusal),
    (loop_sabotages.decisions_are_forgotten, loop_attacks.be_taken_twice),
    (loop_sabotages.there_is_always_room, loop_attacks.fill_what_a_person_reads),
    (loop_sabotages.a_pause_withholds_nothing, loop_attacks.reach_an_agent_in_a_pause),
]


@pytest.mark.parametrize(
    ("sabotage", "attack"), LOOPS, ids=[f"{one.__name__}-{other.__name__}" for one, other in LOOPS]
)
async def test_an_attack_on_attention_succeeds_without_its_rule(
    sabotage: Sabotage, attack: Attack, tmp_path: Path
) -> None:
    """Broken, the attack works; whole, it does not (`test_loops`)."""
    with sabotage():
        async with world(fresh(tmp_path)) as broken:
            with_the_break = await attack(broken)

    assert with_the_break.succeeded
