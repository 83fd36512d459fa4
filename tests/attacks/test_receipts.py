"""What nobody can make a sender believe of its message (docs/threat-model.md, "invent a receipt")."""

from tests.attacks import receipt_attacks
from tests.attacks.worlds import World


async def test_receipt_of_acceptance_needs_the_brokers_signature(theatre: World) -> None:
    """The stage stays `queued`; expected `stmt` or `bad_sig` on the link."""
    outcome = await receipt_attacks.forge_an_acceptance(theatre)

    assert not outcome.succeeded
    assert outcome.codes in ({"stmt"}, {"bad_sig"})


async def test_receipt_of_delivery_needs_the_recipients_signature(theatre: World) -> None:
    """What a third member claims of a message that was not for it changes nothing."""
    outcome = await receipt_attacks.acknowledge_in_the_recipients_place(theatre)

    assert not outcome.succeeded


async def test_receipt_of_an_end_needs_the_brokers_signature(theatre: World) -> None:
    """A message cannot be declared dead by anybody else; expected `stmt` and `bad_sig`."""
    outcome = await receipt_attacks.declare_a_message_dead(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"stmt", "bad_sig"}


async def test_receipt_of_the_recipient_counts(theatre: World) -> None:
    """Control: so the refusals above are not deafness."""
    outcome = await receipt_attacks.receipt_of_the_recipient(theatre)

    assert outcome.succeeded
    assert outcome.codes == set()
