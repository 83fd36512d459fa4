"""The pages of docs/spec say what the code does: every message, field and error code has its place."""

import inspect
import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from claudemesh import errors
from claudemesh.protocol import messages
from tools import error_reference

SPEC = Path(__file__).parents[2] / "docs" / "spec"
WIRE = (SPEC / "wire.md").read_text(encoding="utf-8")
SECTIONS = {match[1]: match for match in re.finditer(r"^#{2,3} (\d+(?:\.\d+)?) ?(.*)$", WIRE, re.MULTILINE)}
ALL_MESSAGES = (*get_args(messages.PeerMessage), *get_args(messages.BrokerMessage))


def section_text(number: str) -> str:
    start = SECTIONS[number].start()
    end = min((match.start() for match in SECTIONS.values() if match.start() > start), default=len(WIRE))
    return WIRE[start:end]


@pytest.mark.parametrize("message", ALL_MESSAGES, ids=lambda message: message.__struct_config__.tag)
def test_every_message_has_a_section_that_names_it_and_its_fields(message: type[msgspec.Struct]) -> None:
    """A frame that the spec does not describe does not exist, and the other way round."""
    reference = re.search(r"wire\.md §(\d+\.\d+)", inspect.getdoc(message) or "")

    assert reference is not None, f"{message.__name__} names no section"
    text = section_text(reference[1])

    assert f"`{message.__struct_config__.tag}`" in SECTIONS[reference[1]][2]
    for field in message.__struct_encode_fields__:
        assert f"`{field}`" in text, f"{message.__name__}.{field} is not described in §{reference[1]}"


def test_every_type_in_the_spec_exists() -> None:
    """A heading of §3 to §7 names only message types that the code has."""
    tags = {message.__struct_config__.tag for message in ALL_MESSAGES}

    named = {tag for match in SECTIONS.values() for tag in re.findall(r"`([a-z_]+)`", match[2])}

    assert named == tags


def test_error_page_is_the_error_tree() -> None:
    """docs/spec/errors.md holds exactly the codes, hints and effects of claudemesh.errors."""
    page = (SPEC / "errors.md").read_text(encoding="utf-8")

    assert page.split(error_reference.MARK)[1].strip() == error_reference.tables().strip()


def test_no_error_code_has_two_meanings() -> None:
    """A program that switches on a code needs no class: each code belongs to exactly one."""
    classes = [one for _, one in inspect.getmembers(errors, inspect.isclass) if vars(one).get("CODES")]

    codes = [code for one in classes for code in one.CODES]

    assert len(codes) == len(set(codes)), sorted(code for code in codes if codes.count(code) > 1)


def test_an_unknown_code_cannot_be_raised() -> None:
    """A code without a documented meaning is a defect, found where it is written."""
    with pytest.raises(AssertionError, match="has no code"):
        errors.Refused("no_such_code")
