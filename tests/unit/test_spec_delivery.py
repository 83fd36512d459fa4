"""docs/spec/delivery.md says what the code does: every stage, refusal, field and content type."""

import re
import string
from pathlib import Path

import msgspec

from claudemesh.peer import contents
from claudemesh.protocol import delivery
from claudemesh.protocol.delivery import Claim, Stage, Witness

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "spec" / "delivery.md").read_text(encoding="utf-8")


def section(number: int) -> str:
    """The text of one section."""
    found = re.search(rf"^## {number}\. .*?(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[0]


def test_every_claim_has_its_row_with_its_rank_and_what_it_implies() -> None:
    """And no row is of a claim that the code ignores."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| .*? \| (\d) \| (?:`(\w+)`|–) \|$", section(2), re.MULTILINE)

    described = {Claim(Stage(stage), Witness(witness)): (int(rank), implied) for stage, witness, rank, implied in rows}

    admissible = {Claim(s, w) for s in Stage for w in Witness if delivery.is_admissible(Claim(s, w))}
    assert set(described) == admissible
    for claim, (rank, implied) in described.items():
        assert delivery.rank(claim) == rank
        assert not implied or delivery.reaches(claim, Stage(implied))


def test_every_refusal_with_a_rule_of_its_own_is_named() -> None:
    """Those that are cured by sealing again, and those that time cures."""
    for codes in (delivery.RESEAL_CODES, delivery.RETRY_CODES):
        for code in codes:
            assert f"`{code}`" in section(3)


def test_every_state_event_and_action_is_named() -> None:
    """In the tables of the submission."""
    for state in (delivery.Queued, delivery.Sealed, delivery.InFlight, delivery.Waiting, delivery.Settled):
        assert f"| `{state.__name__}` |" in section(3)
    for event in (
        delivery.LinkOpened,
        delivery.LinkLost,
        delivery.EnvelopeSealed,
        delivery.Ticked,
        delivery.BrokerAccepted,
        delivery.BrokerRefused,
        delivery.RecipientNacked,
        delivery.RecipientRemoved,
        delivery.ExpiryPassed,
    ):
        assert f"`{event.__name__}`" in section(3)
    for action in delivery.Action:
        assert action.value in section(3)


def test_receipts_and_profiles_have_the_fields_that_are_described() -> None:
    """Their stages, their fields, their limits."""
    stages = re.search(r"^\| `st` \| (.*) \|$", section(5), re.MULTILINE)
    assert stages is not None
    assert re.findall(r"`(\w+)`", stages[1]) == [str(stage) for stage in contents.RECEIPT_STAGES]
    for field in msgspec.structs.fields(contents.Profile):
        assert f"`{field.encode_name}`" in section(7)
    for field in msgspec.structs.fields(contents.SessionLabel):
        assert f'"{field.encode_name}"' in section(7)
    assert f"1 to {contents.MAX_NAME_CHARACTERS} characters" in section(7)
    listed = re.search(r"any of ``(.*)``\.$", section(7), re.MULTILINE)
    assert listed is not None
    assert set(listed[1].split()) == {one for one in string.punctuation if not contents.is_name(one)}
