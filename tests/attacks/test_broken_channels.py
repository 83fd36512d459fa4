"""An attack on a channel that fails proves something only if it succeeds once the check that stops it is gone."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from tests.attacks import channel_attacks, channel_sabotages, sabotages
from tests.attacks.worlds import Outcome, World, fresh, world

Attack = Callable[[World], Awaitable[Outcome]]
Sabotage = Callable[[], AbstractContextManager[None]]

CHANNELS: list[tuple[Sabotage, Attack]] = [
    (channel_sabotages.no_epoch_author, channel_attacks.make_an_epoch_as_an_outsider),
    (channel_sabotages.no_author_in_the_channel, channel_attacks.date_an_epoch_back),
    (channel_sabotages.no_commitment, channel_attacks.give_one_member_another_key),
    (channel_sabotages.no_commitment_in_history, channel_attacks.share_a_forged_history),
    (channel_sabotages.no_send_rule, channel_attacks.date_an_epoch_back),
    (channel_sabotages.no_send_rule, channel_attacks.post_before_anybody_has_rotated),
    (channel_sabotages.no_send_rule, channel_attacks.read_with_a_stolen_box_key),
    (channel_sabotages.any_epoch_is_chosen, channel_attacks.publish_two_epochs),
    (channel_sabotages.no_capability_in_posts, channel_attacks.go_beyond_a_sessions_capabilities),
    (channel_sabotages.no_gossip_in_channels, channel_attacks.claim_a_head_in_an_epoch_or_post),
    (channel_sabotages.anybody_is_entitled, channel_attacks.ask_for_a_slot_without_being_entitled),
    (channel_sabotages.secrets_are_given_again, channel_attacks.ask_a_thousand_times),
    (channel_sabotages.names_are_compared_by_letter, channel_attacks.imitate_a_channels_name),
    (channel_sabotages.anybody_names_a_channel, channel_attacks.imitate_a_channels_name),
    (sabotages.no_inner_signature, channel_attacks.speak_as_another),
    (sabotages.no_attestation_signature, channel_attacks.go_beyond_a_sessions_capabilities),
    (sabotages.no_replay_window, channel_attacks.replay_a_post),
    (partial(sabotages.no_rule, "chan"), channel_attacks.make_too_many_channels),
    (partial(sabotages.no_rule, "chan_add"), channel_attacks.enter_a_private_channel),
]


def label(row: tuple[Sabotage, Attack]) -> str:
    sabotage = row[0]
    name = sabotage.func.__name__ if isinstance(sabotage, partial) else getattr(sabotage, "__name__", "")
    return f"{name}-{row[1].__name__}"


@pytest.mark.parametrize(("sabotage", "attack"), CHANNELS, ids=map(label, CHANNELS))
async def test_an_attack_on_a_channel_succeeds_without_its_check(
    sabotage: Sabotage, attack: Attack, tmp_path: Path
) -> None:
    """Broken, the attack works; whole, it does not (`test_channels`)."""
    with sabotage():
        async with world(fresh(tmp_path)) as broken:
            with_the_break = await attack(broken)

    assert with_the_break.succeeded
