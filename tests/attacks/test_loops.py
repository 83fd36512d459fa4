"""What a member whose agent obeys no rule can cost another one (docs/threat-model.md, "cost its attention")."""

from collections.abc import Awaitable, Callable

import pytest

from tests.attacks import loop_attacks
from tests.attacks.worlds import Outcome, World

Attack = Callable[[World], Awaitable[Outcome]]

LOOPS: list[tuple[Attack, set[str]]] = [
    (loop_attacks.talk_on_and_on, {"hops"}),
    (loop_attacks.claim_an_absurd_distance, {"hops"}),
    (loop_attacks.say_the_same_again, {"repeat"}),
    (loop_attacks.begin_anew_each_time, {"pair"}),
    (loop_attacks.come_back_after_a_refusal, set()),
    (loop_attacks.be_taken_twice, set()),
    (loop_attacks.fill_what_a_person_reads, {"hold_full"}),
    (loop_attacks.reach_an_agent_in_a_pause, set()),
]


@pytest.mark.parametrize(("attack", "reasons"), LOOPS, ids=[attack.__name__ for attack, _ in LOOPS])
async def test_an_agent_without_rules_reaches_no_further_than_the_budgets(
    attack: Attack, reasons: set[str], theatre: World
) -> None:
    """It is held, or refused; and for the reason that a person is told."""
    outcome = await attack(theatre)

    assert not outcome.succeeded
    assert outcome.codes == reasons
