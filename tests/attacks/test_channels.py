"""What neither the broker nor a member can do to a channel of real peers."""

from tests.attacks import channel_attacks
from tests.attacks.worlds import World


async def test_a07_a_frozen_peer_sends_nothing_again(theatre: World) -> None:
    """A07: sends are refused from the freeze on, also those that were in flight."""
    outcome = await channel_attacks.have_a_frozen_peer_seal_again(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"fork"}


async def test_a10_neither_broker_nor_outsider_makes_an_epoch(theatre: World) -> None:
    """A10: expected `epoch_author`, `bad_sig` or `stmt`; the victim makes an epoch of its own."""
    outcome = await channel_attacks.make_an_epoch_as_an_outsider(theatre)

    assert not outcome.succeeded
    assert {"epoch_author"} <= outcome.codes


async def test_a10_a_tampered_slot_is_refused(theatre: World) -> None:
    """A10: expected `box_open`, `b64`, `stale_key` or `no_slot`; the victim writes under another epoch."""
    outcome = await channel_attacks.tamper_with_a_slot(theatre)

    assert not outcome.succeeded
    assert {"box_open", "no_slot"} <= outcome.codes


async def test_a12_a_replayed_post_surfaces_once(theatre: World) -> None:
    """A12: in a channel too, also when the inbox has been emptied."""
    outcome = await channel_attacks.replay_a_post(theatre)

    assert not outcome.succeeded


async def test_a14_a_post_does_not_open_in_another_channel(theatre: World) -> None:
    """A14: expected `secretbox_open`, though both channels share an epoch."""
    outcome = await channel_attacks.carry_a_post_to_another_channel(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"secretbox_open"}


async def test_a31_fuzzed_posts_and_epochs_neither_surface_nor_crash(theatre: World) -> None:
    """A31: three hundred of them; nothing is taken, and the victim reads and writes on."""
    outcome = await channel_attacks.fuzz_posts_and_epochs(theatre)

    assert not outcome.succeeded


async def test_a21_a_member_cannot_speak_as_another_in_a_channel(theatre: World) -> None:
    """A21: expected `bad_sig` under the other's attestation, `misdirected` under one's own."""
    outcome = await channel_attacks.speak_as_another(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"bad_sig", "misdirected"}


async def test_a24_a_rotator_cannot_split_a_channel(theatre: World) -> None:
    """A24: expected `epoch_commit` and `no_slot`; the victim rotates, and everybody reads it."""
    outcome = await channel_attacks.give_one_member_another_key(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"epoch_commit", "no_slot"}


async def test_a26_an_epoch_of_a_revoked_member_is_never_written_under(theatre: World) -> None:
    """A26: the back-dated epoch is only read with; the present one is refused with `epoch_author`."""
    outcome = await channel_attacks.date_an_epoch_back(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"readable", "epoch_author", "not_a_member"}


async def test_a28_a_session_cannot_exceed_its_capabilities(theatre: World) -> None:
    """A28: expected `cap` for posts and epochs, `bad_sig` or `stmt` for what it attests itself."""
    outcome = await channel_attacks.go_beyond_a_sessions_capabilities(theatre)

    assert not outcome.succeeded
    assert "cap" in outcome.codes
    assert outcome.codes & {"bad_sig", "stmt"}


async def test_a35_a_join_that_races_a_revocation_leaves_exactly_the_survivors(theatre: World) -> None:
    """A35: the admission is signed again on the new head, and the next epoch is for exactly the survivors."""
    outcome = await channel_attacks.revoke_while_somebody_joins(theatre)

    assert not outcome.succeeded


async def test_a36_the_next_sender_rotates_when_the_revoker_did_not(theatre: World) -> None:
    """A36: nothing that the revoked member ever held, nor any slot at the broker, opens what is written next."""
    outcome = await channel_attacks.post_before_anybody_has_rotated(theatre)

    assert not outcome.succeeded


async def test_a39_history_with_another_record_is_refused(theatre: World) -> None:
    """A39: expected `epoch_commit`; the true history opens what was kept from before, and is never written under."""
    outcome = await channel_attacks.share_a_forged_history(theatre)

    assert not outcome.succeeded
    assert "epoch_commit" in outcome.codes


async def test_a13_a_broker_cannot_discard_what_waits_for_its_epoch(theatre: World) -> None:
    """A13: what was acknowledged is the peer's own; a number of its journal is none of the broker's."""
    outcome = await channel_attacks.discard_what_waits_for_its_epoch(theatre)

    assert not outcome.succeeded


async def test_a39_a_shared_past_that_cannot_be_kept_stops_nobody(theatre: World) -> None:
    """A39: no text, and dates that no database holds."""
    outcome = await channel_attacks.share_a_past_that_cannot_be_kept(theatre)

    assert not outcome.succeeded


async def test_a40_the_owner_cannot_enter_a_private_channel(theatre: World) -> None:
    """A40: expected `denied` by every verifier; there is no slot for the owner."""
    outcome = await channel_attacks.enter_a_private_channel(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"denied"}


async def test_a47_a_rekey_locks_the_thief_of_a_box_key_out_of_channels(theatre: World) -> None:
    """A47: the next message is under a new epoch, whose slot is sealed to the new key."""
    outcome = await channel_attacks.read_with_a_stolen_box_key(theatre)

    assert not outcome.succeeded


async def test_a48_a_slot_is_repaired_only_for_the_entitled(theatre: World) -> None:
    """A48: expected `not_entitled` for the newcomer; who was in the channel gets the secret."""
    outcome = await channel_attacks.ask_for_a_slot_without_being_entitled(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"not_entitled"}


async def test_n11_a_thousand_nacks_cost_one_resend_per_id_and_peer(theatre: World) -> None:
    """N11: one slot and one letter go out again; foreign ids are answered with nothing."""
    outcome = await channel_attacks.ask_a_thousand_times(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"1 slots", "1 letters"}


async def test_two_epochs_of_one_rotator_are_both_read_and_one_is_chosen(theatre: World) -> None:
    """Whatever the order in which they came, everybody writes under the same one."""
    outcome = await channel_attacks.publish_two_epochs(theatre)

    assert not outcome.succeeded
    assert outcome.codes == set()


async def test_an_unprovable_head_drops_the_epoch_or_post_and_freezes_nobody(theatre: World) -> None:
    """Expected `unproven_roster_claim`."""
    outcome = await channel_attacks.claim_a_head_in_an_epoch_or_post(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"unproven_roster_claim"}


async def test_posts_that_nobody_can_open_are_bounded_and_hold_up_nobody(theatre: World) -> None:
    """They wait in a bounded number, one question is asked, and the channel goes on."""
    outcome = await channel_attacks.post_under_an_epoch_that_nobody_has(theatre)

    assert not outcome.succeeded


async def test_no_peer_takes_more_channels_of_one_member_than_it_may_make(theatre: World) -> None:
    """Expected `denied`, whatever the broker stored."""
    outcome = await channel_attacks.make_too_many_channels(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"denied"}


async def test_a_name_that_looks_like_another_is_shown_with_its_id(theatre: World) -> None:
    """No channel takes over a name in use, and only its creator renames a channel."""
    outcome = await channel_attacks.imitate_a_channels_name(theatre)

    assert not outcome.succeeded
