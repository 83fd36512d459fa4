"""An attack that fails proves something only if it succeeds once the check that stops it is gone."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from tests.attacks import (
    audit_attacks,
    broker_attacks,
    handshake_attacks,
    key_attacks,
    message_attacks,
    receipt_attacks,
    roster_attacks,
    sabotages,
)
from tests.attacks.worlds import Outcome, World, fresh, world

Attack = Callable[[World], Awaitable[Outcome]]
Sabotage = Callable[[], AbstractContextManager[None]]

PEERS: list[tuple[Sabotage, Attack]] = [
    (sabotages.no_inner_signature, message_attacks.impersonate_with_the_recipients_stolen_key),
    (sabotages.no_recipient_binding, message_attacks.forward_with_the_recipients_stolen_key),
    (sabotages.no_origin_binding, message_attacks.carry_a_message_to_another_mesh_of_the_same_session),
    (sabotages.no_capability_check, message_attacks.attest_oneself_for_too_long),
    (sabotages.no_replay_window, message_attacks.replay_after_the_inbox_was_pruned),
    (sabotages.no_time_check, message_attacks.replay_after_weeks),
    (sabotages.no_time_check, message_attacks.release_early),
    (sabotages.no_time_check, message_attacks.release_late),
    (sabotages.no_time_check, message_attacks.outlive_an_attestation),
    (sabotages.no_attestation_signature, message_attacks.attest_in_anothers_name),
    (sabotages.dead_sessions_live, message_attacks.use_a_killed_session),
    (sabotages.unproven_claims_count, message_attacks.claim_a_false_head),
    (sabotages.no_gossip, roster_attacks.fork_two_peers),
    (sabotages.no_gossip, roster_attacks.withhold_a_revocation),
    (sabotages.no_head_comparison, roster_attacks.roll_the_log_back),
    (sabotages.any_key_signs_heads, roster_attacks.sign_heads_with_another_key),
    (sabotages.no_roster_signatures, roster_attacks.admit_a_ghost),
    (partial(sabotages.no_rule, "admit"), roster_attacks.exceed_the_uses_of_a_link),
    (partial(sabotages.no_rule, "admit"), roster_attacks.use_an_expired_or_revoked_link),
    (partial(sabotages.no_rule, "role"), roster_attacks.escalate),
    (partial(sabotages.no_rule, "broker"), roster_attacks.escalate),
    (partial(sabotages.no_rule, "invite"), roster_attacks.escalate),
    (sabotages.no_clock, roster_attacks.date_an_entry_far_ahead),
    (sabotages.no_mesh_id_in_the_link_and_no_proof_of_possession, roster_attacks.sell_ones_own_mesh),
    (sabotages.no_origin_check, handshake_attacks.relay_the_real_brokers_challenge),
    (sabotages.no_broker_key_check, handshake_attacks.answer_with_another_key),
    (sabotages.no_broker_key_check, roster_attacks.replace_the_brokers_key),
    (sabotages.no_card_number, key_attacks.serve_an_older_card),
    (sabotages.no_card_signature, key_attacks.swap_the_box_key_in_a_card),
    (sabotages.unsigned_acceptance, receipt_attacks.forge_an_acceptance),
    (sabotages.unsigned_notices, receipt_attacks.declare_a_message_dead),
    (sabotages.no_owed_rows, audit_attacks.truncate),
    (sabotages.no_audit_receipts, audit_attacks.replace_an_acknowledged_row),
    (sabotages.no_audit_fields, audit_attacks.add_a_field),
]
BROKERS: list[tuple[Sabotage, Callable[[], Awaitable[Outcome]]]] = [
    (sabotages.no_hello_binding, broker_attacks.replay_a_hello),
    (sabotages.no_hello_signature, broker_attacks.present_a_stolen_attestation),
    (sabotages.revoked_members_enter, broker_attacks.present_an_expelled_member),
    (partial(sabotages.no_rule, "role"), broker_attacks.escalate),
]


def name_of(sabotage: Sabotage) -> str:
    if isinstance(sabotage, partial):
        return f"{sabotage.func.__name__}-{sabotage.args[0]}"
    return str(getattr(sabotage, "__name__", sabotage))


def label(row: tuple[Sabotage, Callable[..., Awaitable[Outcome]]]) -> str:
    return f"{name_of(row[0])}-{row[1].__name__}"


@pytest.mark.parametrize(("sabotage", "attack"), PEERS, ids=map(label, PEERS))
async def test_an_attack_on_a_peer_succeeds_without_its_check(
    sabotage: Sabotage, attack: Attack, tmp_path: Path
) -> None:
    """Broken, the attack works; whole, it does not."""
    with sabotage():
        async with world(fresh(tmp_path)) as broken:
            with_the_break = await attack(broken)
    async with world(fresh(tmp_path)) as whole:
        without_it = await attack(whole)

    assert with_the_break.succeeded
    assert not without_it.succeeded


@pytest.mark.parametrize(("sabotage", "attack"), BROKERS, ids=map(label, BROKERS))
async def test_an_attack_on_the_broker_succeeds_without_its_check(
    sabotage: Sabotage, attack: Callable[[], Awaitable[Outcome]]
) -> None:
    """Broken, the attack works; whole, it does not."""
    with sabotage():
        with_the_break = await attack()
    without_it = await attack()

    assert with_the_break.succeeded
    assert not without_it.succeeded
