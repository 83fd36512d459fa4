"""Bodies of receipts, nacks and profiles: exact, bounded, and without names that deceive."""

import json

import pytest

from claudemesh.errors import Malformed, UsageError
from claudemesh.peer import contents
from claudemesh.peer.contents import Nack, Profile, Receipt, SessionLabel
from claudemesh.protocol.delivery import Stage
from claudemesh.types import MessageId, UnixMillis

ID = MessageId("ab" * 16)
BIDI_OVERRIDE, ZERO_WIDTH_SPACE, SOFT_HYPHEN = "\u202e", "\u200b", "\u00ad"
HANGUL_FILLER, PRESENTATION_SELECTOR = "\u3164", "\ufe0f"


def test_receipts_are_read_as_they_were_written() -> None:
    """The note is there where there is one."""
    receipts = [Receipt(ID, Stage.DELIVERED, UnixMillis(7)), Receipt(ID, Stage.OFFERED, UnixMillis(8), "hook")]

    assert contents.read_receipts(contents.write_receipts(receipts)) == receipts


@pytest.mark.parametrize(
    "body",
    [
        {"v": 1, "r": []},
        {"v": 1, "r": [{"id": ID, "st": "delivered", "at": 1}] * 65},
        {"v": 1, "r": [{"id": ID, "st": "accepted", "at": 1}]},
        {"v": 1, "r": [{"id": ID, "st": "replied", "at": 1}]},
        {"v": 1, "r": [{"id": ID, "st": "read"}]},
        {"v": 1, "r": [{"id": "ab", "st": "read", "at": 1}]},
        {"v": 1, "r": [{"id": ID, "st": "read", "at": 1, "x": 1}]},
        {"v": 1, "r": ["read"]},
        {"v": 2, "r": [{"id": ID, "st": "read", "at": 1}]},
        {"v": 1},
    ],
)
def test_a_receipt_that_breaks_its_layout_is_refused(body: dict[str, object]) -> None:
    """A recipient cannot state what the broker knows, nor more than 64 at once."""
    raw = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()

    with pytest.raises(Malformed):
        contents.read_receipts(raw)


def test_a_nack_names_one_message_and_a_code_that_a_sender_can_cure() -> None:
    """Nothing else makes a sender send again."""
    assert contents.read_nack(contents.write_nack(Nack(ID, "stale_key"))) == Nack(ID, "stale_key")
    with pytest.raises(Malformed):
        contents.read_nack(contents.write_nack(Nack(ID, "box_open")))


def test_a_profile_carries_names_in_any_script() -> None:
    """They are UTF-8, and come back as they were."""
    profile = Profile("Ölaf", "ноутбук", [SessionLabel("5a" * 32, "支付")])

    read = contents.read_profile(contents.write_profile(profile))

    assert (read.name, read.device, read.sessions[0].label) == ("Ölaf", "ноутбук", "支付")


@pytest.mark.parametrize(
    "name",
    [
        "a.b",
        "a/b",
        "#a",
        "@a",
        "tag:a",
        "a b",
        "a\nb",
        "a\x1b[0m",
        BIDI_OVERRIDE + "a",
        "a" + ZERO_WIDTH_SPACE,
        "a" + SOFT_HYPHEN,
        "a" + HANGUL_FILLER,
        "a" + PRESENTATION_SELECTOR,
        "e\u0301",
        "a" * 41,
    ],
)
def test_a_name_that_could_pass_for_an_address_or_hide_is_refused(name: str) -> None:
    """In a profile that arrives, and from a person who types it; that one gets a message that says what may be."""
    with pytest.raises(Malformed):
        contents.read_profile(contents.write_profile(Profile(name, "box")))
    assert not contents.is_name(name)
    if name != "e\u0301":  # a person's is composed, a peer's is not altered
        with pytest.raises(UsageError):
            contents.require_name(name, "a name")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"name":"a"}', b'{"name":1,"device":"b"}', b"\xff", b'{"name":"' + b"a" * 20_000]
)
def test_what_is_no_profile_is_refused(body: bytes) -> None:
    """Nothing of it is used."""
    with pytest.raises(Malformed):
        contents.read_profile(body)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("payments-api", "payments-api"),
        ("my project", "my-project"),
        ("a.b/c", "a-b-c"),
        ("...", ""),
        ("x" * 60, "x" * 40),
    ],
)
def test_a_directory_name_becomes_a_label(text: str, label: str) -> None:
    """What may not stand in a name becomes a dash."""
    assert contents.as_label(text) == label
    assert label == "" or contents.is_name(label)
