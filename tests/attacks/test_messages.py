"""What a broker or member cannot do with direct messages, against real peers on real sockets."""

from claudemesh.protocol.limits import DAY_MS, HOUR_MS
from tests.attacks import message_attacks
from tests.attacks.worlds import World


async def test_a12_a_replayed_message_surfaces_once(theatre: World) -> None:
    """A12: expected silence for the same bytes, `replay` once the inbox has forgotten them."""
    outcome = await message_attacks.replay_a_message(theatre)

    assert not outcome.succeeded
    assert outcome.codes <= {"replay"}


async def test_a12_a_pruned_inbox_does_not_let_a_replay_in(theatre: World) -> None:
    """A12: expected `replay`."""
    outcome = await message_attacks.replay_after_the_inbox_was_pruned(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"replay"}


async def test_a12_a_message_does_not_outlive_the_queue(theatre: World) -> None:
    """A12: expected `time`."""
    outcome = await message_attacks.replay_after_weeks(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"time"}


async def test_a12_what_may_be_a_replay_after_a_restore_is_marked(theatre: World) -> None:
    """A12: without windows it cannot be refused, but it does not look like news."""
    outcome = await message_attacks.replay_after_the_journal_was_lost(theatre)

    assert not outcome.succeeded


async def test_a13_dropped_messages_are_reported_and_a_late_one_surfaces_once(theatre: World) -> None:
    """A13: a gap of 2 is reported; the late message is accepted, once."""
    bob = await theatre.victim("bob")
    letters = [theatre.owner.write(bob.id, bob.kid, str(number)) for number in range(4)]

    await theatre.deliver(bob, letters[0])
    await theatre.deliver(bob, letters[3])
    await theatre.deliver(bob, letters[1])
    await theatre.deliver(bob, letters[1], letters[3])
    await theatre.probe(bob)

    assert [text for text in bob.texts if text != "probe"] == ["0", "3", "1"]
    assert bob.gaps == [2]


async def test_a14_a_message_for_another_peer_does_not_open(theatre: World) -> None:
    """A14: expected `stale_key` and `box_open`."""
    outcome = await message_attacks.misdirect_to_another_peer(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"stale_key", "box_open"}


async def test_a15_outer_fields_change_nothing(theatre: World) -> None:
    """A15: priority and id are those that the sender signed."""
    outcome = await message_attacks.alter_the_outer_fields(theatre)

    assert not outcome.succeeded


async def test_a16_there_is_no_plaintext_path(theatre: World) -> None:
    """A16: expected `box_open`, or a frame that is malformed; and the peer goes on."""
    outcome = await message_attacks.send_plaintext(theatre)

    assert not outcome.succeeded
    assert "box_open" in outcome.codes


async def test_a17_a_message_of_another_mesh_is_refused(theatre: World) -> None:
    """A17: expected `att`, since attestations are bound to a mesh."""
    outcome = await message_attacks.carry_a_message_to_another_mesh(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"att"}


async def test_a17_the_signed_header_names_the_mesh_too(theatre: World) -> None:
    """A17: expected `misdirected`."""
    outcome = await message_attacks.carry_a_message_to_another_mesh_of_the_same_session(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"misdirected"}


async def test_a19_a_stolen_attestation_is_not_a_session(theatre: World) -> None:
    """A19: expected `box_open`."""
    outcome = await message_attacks.use_a_stolen_attestation(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"box_open"}


async def test_a19_a_member_cannot_attest_in_anothers_name(theatre: World) -> None:
    """A19: expected `att` for its own signature, `bad_sig` for a borrowed one."""
    outcome = await message_attacks.attest_in_anothers_name(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"att", "bad_sig"}


async def test_a20_a_scheduled_message_is_not_released_early(theatre: World) -> None:
    """A20: held until its time, then surfaced once."""
    outcome = await message_attacks.release_early(theatre)
    bob = theatre.victims[0]

    theatre.clock.advance(12 * HOUR_MS + 1_000)
    await theatre.probe(bob)
    await theatre.until(lambda: "tomorrow" in bob.texts, "the message surfaces at its time")

    assert not outcome.succeeded
    assert bob.texts.count("tomorrow") == 1


async def test_a20_a_peer_keeps_only_so_many_messages_for_later(theatre: World) -> None:
    """A20: expected `too_early` for those beyond."""
    outcome = await message_attacks.flood_with_early_messages(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"too_early"}


async def test_a20_an_expired_message_is_not_released_late(theatre: World) -> None:
    """A20: expected `time`."""
    outcome = await message_attacks.release_late(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"time"}


async def test_a22_a_signed_message_cannot_be_forwarded_as_if_written_to_another(theatre: World) -> None:
    """A22: expected `box_open`, `att`, `bad_sig`, and `misdirected` for a session grafted onto another peer."""
    outcome = await message_attacks.forward_as_if_written_to_another(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"box_open", "att", "bad_sig", "misdirected"}


async def test_a22_a_stolen_box_key_does_not_help_the_forwarder(theatre: World) -> None:
    """A22: expected `misdirected`: the recipient is signed."""
    outcome = await message_attacks.forward_with_the_recipients_stolen_key(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"misdirected"}


async def test_a23_a_stolen_box_key_does_not_let_others_speak(theatre: World) -> None:
    """A23: expected `bad_sig`."""
    outcome = await message_attacks.impersonate_with_the_recipients_stolen_key(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"bad_sig"}


async def test_a26_mail_of_a_revoked_member_does_not_surface(theatre: World) -> None:
    """A26: expected `not_a_member`, whenever it was written."""
    outcome = await message_attacks.deliver_mail_of_a_revoked_member(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"not_a_member"}


async def test_a27_a_false_head_drops_the_message_and_freezes_nobody(theatre: World) -> None:
    """A27: expected `unproven_roster_claim`, and no freeze."""
    outcome = await message_attacks.claim_a_false_head(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"unproven_roster_claim"}


async def test_a29_a_killed_session_is_silent(theatre: World) -> None:
    """A29: expected `session_dead`."""
    outcome = await message_attacks.use_a_killed_session(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"session_dead"}


async def test_a29_an_attestation_ends_when_it_says(theatre: World) -> None:
    """A29: expected `att_expired`."""
    outcome = await message_attacks.outlive_an_attestation(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"att_expired"}


async def test_a29_an_attestation_cannot_be_wider_than_allowed(theatre: World) -> None:
    """A29: expected `att_ttl` and `cap`."""
    outcome = await message_attacks.attest_oneself_for_too_long(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"att_ttl", "cap"}


async def test_a31_fuzzed_envelopes_neither_surface_nor_crash(theatre: World) -> None:
    """A31: 300 mutants; the peer still reads the honest message that follows."""
    outcome = await message_attacks.fuzz_envelopes(theatre)

    assert not outcome.succeeded


async def test_a32_a_stolen_device_does_not_open_what_came_before_its_rotations(theatre: World) -> None:
    """A32: expected `stale_key` from the device, and no key on it opens the recording."""
    bob = await theatre.victim("bob")
    letter = theatre.owner.write(bob.id, bob.kid, "old secret")
    await theatre.deliver(bob, letter)
    assert "old secret" in bob.texts
    opened_before = await message_attacks.read_with_a_stolen_device_after_rotations(theatre, letter, bob)

    for number in (2, 3, 4):
        theatre.clock.advance(8 * DAY_MS)
        bob = await bob.restarted()
        await bob.rotated_to(number)
    await theatre.until(lambda: len(bob.keys["peer"]["boxes"]) == 3, "bob deletes the oldest secret")
    outcome = await message_attacks.read_with_a_stolen_device_after_rotations(theatre, letter, bob)
    await theatre.broker.connected(bob.id)
    await theatre.deliver(bob, letter)

    assert opened_before.succeeded
    assert bob.codes == {"stale_key"}
    assert letter.header["kid"] not in {one["box"] for one in bob.keys["peer"]["boxes"]}
    assert not outcome.succeeded
