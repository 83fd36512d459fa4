"""What a broker cannot do with the keys to which real peers encrypt."""

from tests.attacks import key_attacks
from tests.attacks.key_attacks import SECRET_TEXT
from tests.attacks.search import spellings
from tests.attacks.worlds import World


async def test_a09_broker_cannot_swap_a_box_key(theatre: World) -> None:
    """A09: expected `bad_sig`, or `stmt` for another signer; the message goes to the key of the roster."""
    outcome = await key_attacks.swap_the_box_key_in_a_card(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"bad_sig", "stmt"}


async def test_a09_broker_cannot_go_back_to_an_older_card(theatre: World) -> None:
    """A09: the older card is ignored, also after a restart of the sender."""
    outcome = await key_attacks.serve_an_older_card(theatre)

    assert not outcome.succeeded


async def test_a47_a_newcomer_does_not_believe_a_card_from_before_a_rekey(theatre: World) -> None:
    """A47, direct messages: the roster's floor refuses the old card."""
    outcome = await key_attacks.serve_a_card_from_before_a_rekey(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {""}


async def test_a31_nothing_is_encrypted_to_a_key_of_low_order(theatre: World) -> None:
    """A31: expected `box_open`; the sender lives on."""
    outcome = await key_attacks.offer_a_key_of_low_order(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"box_open"}


async def test_a11_broker_that_keeps_everything_holds_no_text_and_no_secret(theatre: World) -> None:
    """A11: all that two real peers ever sent to it, searched in every spelling."""
    bob, carol = await theatre.victim("bob"), await theatre.victim("carol")
    await bob.reaches(theatre.held.main.seq)
    await bob.peer.send(carol.id, SECRET_TEXT)
    await carol.peer.send(bob.id, SECRET_TEXT[::-1])
    await theatre.until(lambda: SECRET_TEXT in carol.texts and SECRET_TEXT[::-1] in bob.texts, "both have read")

    kept = b"\n".join(frame.encode() for link in theatre.broker.links for frame in link.heard)
    secrets = [secret for one in (bob, carol) for secret in key_attacks.config_secrets(one.directory)]
    sought = [SECRET_TEXT.encode(), SECRET_TEXT[::-1].encode(), b"carol", *secrets]

    assert bob.id.encode() in kept
    assert len(secrets) >= 6
    assert [part for part in sought for spelling in spellings(part) if spelling in kept] == []
