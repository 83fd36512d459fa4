"""Nothing but events, codes, counts and fingerprints can get into the daemon's log."""

import json
import logging
from pathlib import Path

import pytest

from claudemesh.daemon.logs import JsonLine, log_defect, log_event

CANARY = "canary-secret"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What our loggers write, formatted as in the file."""
    caplog.set_level(logging.DEBUG)
    return caplog


def formatted(lines: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """Each record as its JSON object."""
    return [json.loads(JsonLine().format(record)) for record in lines.records]


def test_an_event_has_its_name_and_its_fields(lines: pytest.LogCaptureFixture) -> None:
    """Counts as numbers, codes as they are."""
    log_event("op_failed", op="send", code="no_mesh", count=3)

    (line,) = formatted(lines)
    assert (line["event"], line["op"], line["code"], line["count"]) == ("op_failed", "send", "no_mesh", 3)


def test_a_key_is_cut_to_its_fingerprint(lines: pytest.LogCaptureFixture) -> None:
    """Eight digits tell two peers apart, and no more."""
    log_event("link_open", peer="3f9a02c7d1e5b684", mesh="ab" * 32)

    (line,) = formatted(lines)
    assert (line["peer"], line["mesh"]) == ("3f9a02c7", "abababab")


def test_a_field_that_is_not_on_the_list_is_left_out(lines: pytest.LogCaptureFixture) -> None:
    """A careless caller cannot write a text."""
    log_event("op_failed", text=CANARY)

    assert CANARY not in json.dumps(formatted(lines))


def test_a_value_with_unexpected_characters_is_not_written(lines: pytest.LogCaptureFixture) -> None:
    """A code is plain; what is not was somebody's input."""
    log_event("op_failed", code=f"{CANARY}\n{{}}")

    (line,) = formatted(lines)
    assert line["code"] == "?"


def test_the_text_of_a_library_is_not_written(lines: pytest.LogCaptureFixture) -> None:
    """A library's warning may quote what it was given."""
    logging.getLogger("asyncio").error("could not send %s", CANARY)

    (line,) = formatted(lines)
    assert line["event"] == "library"
    assert CANARY not in json.dumps(line)


def test_a_defect_is_located_and_not_quoted(lines: pytest.LogCaptureFixture) -> None:
    """Type and lines of code are enough to find it."""
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        log_defect("send", error)

    (line,) = formatted(lines)
    assert (line["kind"], line["op"]) == ("ValueError", "send")
    assert str(line["where"]).startswith(f"{Path(__file__).name}:")
    assert CANARY not in json.dumps(line)
