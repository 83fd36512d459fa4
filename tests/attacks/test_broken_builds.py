"""An attack that fails proves something only if it succeeds once the check that stops it is gone."""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from tests.attacks import (
    audit_attacks,
    broker_attacks,
    broker_sabotages,
    channel_attacks,
    channel_sabotages,
    handshake_attacks,
    key_attacks,
    loop_attacks,
    loop_sabotages,
    mailbox_attacks,
    message_attacks,
    receipt_attacks,
    roster_attacks,
    sabotages,
)
from tests.attacks.sabotages import Sabotage
from tests.attacks.worlds import Outcome, World, fresh, world

Attack = Callable[[World], Awaitable[Outcome]]

PEERS: list[tuple[Sabotage, Attack]] = [
    (sabotages.no_inner_signature, message_attacks.impersonate_with_the_recipients_stolen_key),
    (sabotages.plaintext_is_read, message_attacks.send_plaintext),
    (sabotages.outer_fields_count, message_attacks.alter_the_outer_fields),
    (sabotages.revoked_members_are_heard, message_attacks.deliver_mail_of_a_revoked_member),
    (sabotages.attestations_without_end, message_attacks.attest_oneself_for_too_long),
    (sabotages.no_card_floor, key_attacks.serve_a_card_from_before_a_rekey),
    (sabotages.no_recipient_binding, message_attacks.forward_with_the_recipients_stolen_key),
    (sabotages.no_origin_binding, message_attacks.carry_a_message_to_another_mesh_of_the_same_session),
    (sabotages.no_capability_check, message_attacks.attest_oneself_for_too_long),
    (sabotages.no_replay_window, message_attacks.replay_after_the_inbox_was_pruned),
    (sabotages.losses_are_forgotten, message_attacks.replay_after_the_journal_was_lost),
    (sabotages.no_time_check, message_attacks.replay_after_weeks),
    (sabotages.no_time_check, message_attacks.release_early),
    (sabotages.no_time_check, message_attacks.release_late),
    (sabotages.no_time_check, message_attacks.outlive_an_attestation),
    (sabotages.no_attestation_signature, message_attacks.attest_in_anothers_name),
    (sabotages.dead_sessions_live, message_attacks.use_a_killed_session),
    (sabotages.unproven_claims_count, message_attacks.claim_a_false_head),
    (sabotages.no_gossip, roster_attacks.fork_two_peers),
    (sabotages.no_gossip, roster_attacks.withhold_a_revocation),
    (sabotages.old_heads_are_good, roster_attacks.keep_a_peer_stale),
    (sabotages.no_head_comparison, roster_attacks.roll_the_log_back),
    (sabotages.any_key_signs_heads, roster_attacks.sign_heads_with_another_key),
    (sabotages.no_roster_signatures, roster_attacks.admit_a_ghost),
    (partial(sabotages.no_rule, "admit"), roster_attacks.exceed_the_uses_of_a_link),
    (partial(sabotages.no_rule, "admit"), roster_attacks.use_an_expired_or_revoked_link),
    (sabotages.expired_links_stay, roster_attacks.bring_an_expired_link_back),
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
CHANNELS: list[tuple[Sabotage, Attack]] = [
    (channel_sabotages.in_flight_is_no_sending, channel_attacks.have_a_frozen_peer_seal_again),
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
VICTIMS = [*PEERS, *CHANNELS, *LOOPS]
BROKERS: list[tuple[Sabotage, Callable[[], Awaitable[Outcome]]]] = [
    (broker_sabotages.no_hello_binding, broker_attacks.replay_a_hello),
    (broker_sabotages.no_hello_signature, broker_attacks.present_a_stolen_attestation),
    (broker_sabotages.revoked_members_enter, broker_attacks.present_an_expelled_member),
    (partial(sabotages.no_rule, "role"), broker_attacks.escalate),
    (broker_sabotages.rosters_together_have_no_end, broker_attacks.found_meshes_without_end),
    (broker_sabotages.rosters_together_have_no_end, broker_attacks.grow_rosters_without_end),
    (broker_sabotages.a_sender_may_have_a_whole_mailbox, mailbox_attacks.fill_the_mailbox_of_another),
    (broker_sabotages.a_sender_may_have_a_whole_mailbox, mailbox_attacks.fill_a_mailbox_with_posts),
    (broker_sabotages.what_a_removed_member_sent_stays, mailbox_attacks.leave_a_full_mailbox_behind),
]


def name_of(sabotage: Sabotage) -> str:
    if isinstance(sabotage, partial):
        return f"{sabotage.func.__name__}-{sabotage.args[0]}"
    return str(getattr(sabotage, "__name__", sabotage))


def label(row: tuple[Sabotage, Callable[..., Awaitable[Outcome]]]) -> str:
    return f"{name_of(row[0])}-{row[1].__name__}"


@pytest.mark.parametrize(("sabotage", "attack"), VICTIMS, ids=map(label, VICTIMS))
async def test_an_attack_on_a_peer_succeeds_without_its_check(
    sabotage: Sabotage, attack: Attack, tmp_path: Path
) -> None:
    """Broken, the attack works; that it does not work on the whole build, a test of its own shows."""
    with sabotage():
        async with world(fresh(tmp_path)) as broken:
            with_the_break = await attack(broken)

    assert with_the_break.succeeded


def test_each_attack_on_a_peer_has_a_test_on_the_whole_build() -> None:
    here = Path(__file__)
    tests = "".join(path.read_text() for path in here.parent.glob("test_*.py") if path != here)
    attacks = {f"{attack.__module__.rpartition('.')[2]}.{attack.__name__}" for _, attack in VICTIMS}

    assert attacks <= set(re.findall(r"\w+_attacks\.\w+", tests))


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
