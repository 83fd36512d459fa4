"""Frames and error objects of the daemon's local protocol."""

import json

import msgspec
import pytest

from claudemesh.daemon.ipc import LENGTH, MAX_FRAME_BYTES, check_length, decode_frame, encode_frame, error_object
from claudemesh.daemon.schema import messages
from claudemesh.errors import (
    AddressError,
    ClaudemeshError,
    LinkRefused,
    LocalError,
    Malformed,
    Refused,
    RosterConflict,
    RosterRefused,
    Unreachable,
    UsageError,
)


@pytest.mark.parametrize("text", ["", "grün\n\x00", "\U0001f600", '"\\'])
def test_a_frame_carries_any_text(text: str) -> None:
    """What goes in comes out; the length counts bytes."""
    frame = encode_frame({"text": text})

    (length,) = LENGTH.unpack(frame[: LENGTH.size])
    assert length == len(frame) - LENGTH.size
    assert decode_frame(frame[LENGTH.size :]) == {"text": text}


def test_a_lone_surrogate_does_not_break_a_frame() -> None:
    """An argument that is not UTF-8 reaches us as surrogates, and must not end in a stack trace."""
    frame = encode_frame({"text": "a\udcffb"})

    assert decode_frame(frame[LENGTH.size :]) == {"text": "a?b"}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b"\xff\xfe", b"null"])
def test_bytes_that_are_not_a_frame_are_refused(body: bytes) -> None:
    """Whoever listens on the socket instead of the daemon gets an error, not an exception of the decoder."""
    with pytest.raises(LocalError) as refused:
        decode_frame(body)

    assert refused.value.code == "daemon_unreachable"


def test_a_length_is_checked_before_its_bytes_are_read() -> None:
    """Four bytes must not make the other side allocate four gigabytes."""
    assert check_length(MAX_FRAME_BYTES) == MAX_FRAME_BYTES

    with pytest.raises(LocalError):
        check_length(MAX_FRAME_BYTES + 1)


def test_the_largest_message_fits_in_a_frame() -> None:
    """The longest text is worst when every character is escaped."""
    longest = "\x01" * (512 << 10)

    assert len(encode_frame({"text": longest})) < MAX_FRAME_BYTES


@pytest.mark.parametrize(
    ("error", "exit_code", "took_effect"),
    [
        (UsageError("usage", "no"), 2, "nothing"),
        (LocalError("disk"), 3, "nothing"),
        (LocalError("internal"), 1, "unknown"),
        (RosterRefused("denied"), 5, "nothing"),
        (AddressError("unknown_address", "bbo"), 4, "nothing"),
        (Refused("mailbox_full"), 5, "nothing"),
        (Refused("storage"), 5, "unknown"),
        (LinkRefused("invite_expired"), 5, "nothing"),
        (Unreachable("timeout"), 6, "unknown"),
        (Malformed("frame"), 7, "nothing"),
        (RosterConflict("fork"), 7, "nothing"),
    ],
)
def test_an_error_says_its_class_and_whether_anything_took_effect(
    error: ClaudemeshError, exit_code: int, took_effect: str
) -> None:
    """The object holds all that a program or a person needs, and can be written as JSON."""
    described = json.loads(json.dumps(error_object(error)))

    assert described["exit_code"] == exit_code
    assert described["took_effect"] == took_effect
    assert described["code"] == error.code
    assert described["message"]
    assert described["hint"] == error.hint()


def test_what_an_error_states_about_its_effect_outranks_its_class() -> None:
    """A wait that ended too late knows that the message is queued."""
    error = Unreachable("timeout")
    error.took_effect = "queued"  # type: ignore[attr-defined]

    assert error_object(error)["took_effect"] == "queued"


def test_arguments_with_an_unknown_field_are_refused() -> None:
    """A misspelt option must not be ignored in silence."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"to":"bob","text":"x","prority":"now"}', type=messages.SendArgs)
