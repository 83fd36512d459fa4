"""A45: what a broker cannot do to the audit log that it has acknowledged, against a real peer."""

from tests.attacks import audit_attacks
from tests.attacks.worlds import World


async def test_a45_broker_cannot_truncate_what_it_acknowledged(theatre: World) -> None:
    """A45: expected `audit_truncated`."""
    outcome = await audit_attacks.truncate(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"audit_truncated"}


async def test_a45_broker_cannot_forget_everything(theatre: World) -> None:
    """A45: expected `audit_truncated`."""
    outcome = await audit_attacks.truncate_to_nothing(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"audit_truncated"}


async def test_a45_broker_cannot_rewrite_what_it_acknowledged(theatre: World) -> None:
    """A45: expected `audit_receipt`, or `audit_chain` since rows before it were verified."""
    outcome = await audit_attacks.rewrite_an_acknowledged_row(theatre)

    assert not outcome.succeeded
    assert outcome.codes <= {"audit_receipt", "audit_chain"}


async def test_a45_broker_cannot_put_another_row_in_its_place(theatre: World) -> None:
    """A45: expected `audit_receipt`."""
    outcome = await audit_attacks.replace_an_acknowledged_row(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"audit_receipt"}


async def test_a45_broker_cannot_rewrite_what_was_verified(theatre: World) -> None:
    """A45: expected `audit_chain`: what follows does not link up."""
    outcome = await audit_attacks.rewrite_what_was_verified(theatre)

    assert not outcome.succeeded
    assert outcome.codes <= {"audit_chain", "audit_checkpoint"}


async def test_a45_broker_cannot_acknowledge_a_verified_row_with_another_hash(theatre: World) -> None:
    """A45: expected `audit_receipt`, although the acknowledgement came after the row had been checked."""
    outcome = await audit_attacks.acknowledge_what_was_verified_differently(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"audit_receipt"}


async def test_a45_broker_cannot_acknowledge_one_row_with_two_hashes(theatre: World) -> None:
    """A45: expected `audit_receipt`: no row can match both."""
    outcome = await audit_attacks.acknowledge_what_was_verified_differently(theatre, twice=True)

    assert not outcome.succeeded
    assert outcome.codes == {"audit_receipt"}


async def test_a45_broker_cannot_note_more_than_the_closed_list(theatre: World) -> None:
    """A45: expected `field` for another key, `field_type` for a text in the place of a key."""
    outcome = await audit_attacks.add_a_field(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"field"}


async def test_a45_broker_cannot_note_names(theatre: World) -> None:
    """A45: expected `field_type`."""
    outcome = await audit_attacks.write_a_text_into_a_row(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"field_type"}


async def test_a45_broker_cannot_break_the_chain(theatre: World) -> None:
    """A45: expected `audit_chain`."""
    outcome = await audit_attacks.break_the_chain(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"audit_chain"}


async def test_a45_broker_cannot_sign_with_a_key_that_it_can_disown(theatre: World) -> None:
    """A45: expected `stmt`."""
    outcome = await audit_attacks.sign_with_another_key(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"stmt"}
