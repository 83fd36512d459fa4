"""What a phishing broker cannot get out of a real peer; test_broker.py has the broker's side."""

from tests.attacks import handshake_attacks
from tests.attacks.worlds import World


async def test_a18_a_relayed_challenge_gets_no_hello(theatre: World) -> None:
    """A18: expected `origin`, and not a byte is said."""
    outcome = await handshake_attacks.relay_the_real_brokers_challenge(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"origin"}


async def test_a18_a_broker_of_another_key_gets_no_hello(theatre: World) -> None:
    """A18: expected `broker_key`."""
    outcome = await handshake_attacks.answer_with_another_key(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"broker_key"}


async def test_a18_a_borrowed_name_gets_no_hello(theatre: World) -> None:
    """A18: expected `bad_sig`."""
    outcome = await handshake_attacks.lend_the_real_key_a_name(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"bad_sig"}
