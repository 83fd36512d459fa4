"""A message opens whole, for its recipient, from its sender, or not at all (docs/spec/envelope.md)."""

from typing import Any

import pytest

from claudemesh.crypto import envelope, primitives, statements
from claudemesh.crypto.envelope import Opened, Sealed, open_sealed, padded_length, seal, verify_frame
from claudemesh.crypto.identity import Attestation
from claudemesh.errors import BadSignature, ClaudemeshError, Malformed, Unopenable
from claudemesh.types import BoxId
from tests.messages import NONCE, attestation, header, sealed, session
from tests.rosters import box, key


def _open(message: Sealed, sender: Attestation | None = None, secret: bytes | None = None) -> Opened:
    return open_sealed(message, sender or attestation(), secret or box("bob").secret)


def _code(message: Sealed, sender: Attestation | None = None, secret: bytes | None = None) -> str:
    with pytest.raises(ClaudemeshError) as refusal:
        _open(message, sender, secret)
    return refusal.value.code


def _boxed(padded: bytes) -> Sealed:
    """Any bytes, boxed as the session would: what a dishonest sender can put inside."""
    return Sealed(NONCE, primitives.box(padded, NONCE, box("bob").public, session("session").box.secret))


def _signed(frame: bytes, signer: str = "session") -> bytes:
    return frame + primitives.sign(session(signer).sign.secret, statements.labelled("dm", frame))


def _pad(signed: bytes) -> bytes:
    length = padded_length(len(signed) + 1)
    return signed + b"\x80" + b"\0" * (length - len(signed) - 1)


def _frame(raw_header: bytes, body: bytes = b"") -> bytes:
    return b"\x01" + len(raw_header).to_bytes(4, "big") + raw_header + len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize("body", [b"", b"hello bob", b"\0" * 100, "žluťoučký".encode(), b"x" * 524_288])
def test_sealed_message_opens_to_the_same_header_and_body(body: bytes) -> None:
    opened = _open(sealed(body, prio="now", re="ab" * 16))

    assert (opened.header, opened.body) == (header(prio="now", re="ab" * 16), body)


def test_opened_message_is_evidence_that_a_third_party_can_check() -> None:
    opened = _open(sealed())

    verify_frame(opened.frame, opened.signature, attestation())
    with pytest.raises(BadSignature):
        verify_frame(opened.frame + b"x", opened.signature, attestation())
    with pytest.raises(BadSignature):
        verify_frame(opened.frame, opened.signature, attestation(name="other session"))
    with pytest.raises(BadSignature):
        verify_frame(opened.frame, opened.signature[:-1], attestation())


def test_short_texts_have_one_ciphertext_length() -> None:
    """The broker cannot tell "yes" from a paragraph."""
    lengths = {len(sealed(b"x" * size).ciphertext) for size in (0, 1, 100, 400)}

    assert lengths == {envelope.PADDING_FLOOR_BYTES + 16}


@pytest.mark.parametrize(
    ("length", "padded"), [(0, 1280), (1279, 1280), (1280, 1280), (1281, 1344), (5000, 5120), (10**6, 1_015_808)]
)
def test_padding_follows_padme(length: int, padded: int) -> None:
    assert padded_length(length) == padded


def test_padding_costs_at_most_an_eighth() -> None:
    assert all(length <= padded_length(length) <= length * 1.12 for length in range(1281, 200_000, 97))


# Who can open it


def test_only_the_recipients_key_opens() -> None:
    assert _code(sealed(), secret=box("carol").secret) == "box_open"


def test_message_opens_only_as_its_own_senders() -> None:
    """A stolen attestation without the session's secret is of no use (A19)."""
    assert _code(sealed(), sender=attestation("alice", "other session")) == "box_open"


def test_message_cannot_be_passed_on_as_if_it_were_for_somebody_else() -> None:
    """Bob re-boxes Alice's signed frame for Carol; it does not open as Alice's (A22)."""
    opened = _open(sealed())
    again = primitives.box(
        _pad(opened.frame + opened.signature), NONCE, box("carol").public, session("bob's session").box.secret
    )

    assert _code(Sealed(NONCE, again), attestation(), box("carol").secret) == "box_open"
    assert _code(Sealed(NONCE, again), attestation("bob", "bob's session"), box("carol").secret) == "bad_sig"


def test_stolen_box_key_does_not_let_a_thief_write_as_others() -> None:
    """With Bob's secret anybody can compute the box key between Alice and Bob; the signature stops it (A23)."""
    frame = _signed(_frame(statements.encode(header()), b"rm -rf"), "thief's session")
    forged = primitives.box(_pad(frame), NONCE, session("session").box.public, box("bob").secret)

    assert _code(Sealed(NONCE, forged)) == "bad_sig"


@pytest.mark.parametrize("ciphertext", [b"", b"hello plaintext", b"\0" * 16, b"\0" * 1296])
def test_plaintext_is_never_taken_for_a_message(ciphertext: bytes) -> None:
    """There is no fallback (A16)."""
    assert _code(Sealed(b"\0" * 24, ciphertext)) == "box_open"


@pytest.mark.parametrize("length", [0, 23, 25])
def test_nonce_has_24_bytes(length: int) -> None:
    assert _code(Sealed(b"\0" * length, sealed().ciphertext)) == "frame"


# What a dishonest but authentic sender may put inside


@pytest.mark.parametrize(
    "padded",
    [b"", b"\x80", b"\0" * 1280, b"\x80" + b"\0" * 1000, b"x" * 1280, b"\x80" + b"\0" * 1343],
    ids=len,
)
def test_padding_has_one_form(padded: bytes) -> None:
    assert _code(_boxed(padded)) == "pad"


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x02" + _frame(b"{}")[1:],
        _frame(b"{}") + b"x",
        _frame(b"{}")[:-1],
        b"\x01" + (5000).to_bytes(4, "big") + b"x" * 5000 + b"\0\0\0\0",
        b"\x01\xff\xff\xff\xff",
        b"\x01\0\0\0\x02{}\xff\xff\xff\xff",
    ],
    ids=lambda frame: frame[:12].hex() or "empty",
)
def test_frame_has_one_form(frame: bytes) -> None:
    assert _code(_boxed(_pad(_signed(frame)))) == "frame"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"{}", "field"),
        (b"[]", "cj_top"),
        (b'{"v": 1}', "cj_noncanon"),
        (statements.encode(header(v=2)), "field_type"),
        (statements.encode(header(k="ch")), "field_type"),
        (statements.encode(header(note=1)), "field"),
        (statements.encode(header(n=True)), "field_type"),
        (statements.encode(header(rg="00")), "field_type"),
        (statements.encode(header(to="bob")), "field_type"),
    ],
)
def test_header_is_canonical_and_has_its_exact_fields(raw: bytes, code: str) -> None:
    assert _code(_boxed(_pad(_signed(_frame(raw))))) == code


# Sealing


@pytest.mark.parametrize(
    "changes", [{"prio": "urgent"}, {"other": 1}, {"n": -1}, {"ct": "text/\u00e9"}, {"ct": 5}], ids=str
)
def test_header_that_no_recipient_would_take_is_not_sealed(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        sealed(**changes)


def test_longest_header_fits_its_limit() -> None:
    """A sender never makes a header that a recipient refuses for its length."""
    ids = {"tos": "ff" * 32, "re": "ff" * 16, "root": "ff" * 16}
    numbers = dict.fromkeys(("n", "ts", "rs", "ra", "cs", "nb", "exp", "hop"), 2**53 - 1)
    fields = header(ct="x" * 1024, rg="ff" * 64, intent="request", **ids, **numbers)

    message = seal(fields, b"", session("session"), BoxId(box("bob").public), NONCE)

    assert set(fields) == set(envelope.HEADER_FIELDS) | set(envelope.HEADER_OPTIONAL)
    assert len(statements.encode(fields)) <= envelope.MAX_HEADER_BYTES
    assert _open(message).header == fields


def test_nothing_is_sealed_to_a_useless_key() -> None:
    """Neither a low-order point nor a text that is no key (A31)."""
    for recipient in ("00" * 32, "01" + "00" * 31, "00" * 31, "not hex"):
        with pytest.raises(Unopenable):
            seal(header(), b"secret", session("session"), BoxId(recipient), NONCE)


def test_outer_fields_of_an_envelope_are_no_part_of_the_message() -> None:
    """What a recipient believes is in the signed header, so there is nothing outside to tamper with (A15)."""
    assert set(_open(sealed()).header) == set(envelope.HEADER_FIELDS)
    assert set(Sealed._fields) == {"nonce", "ciphertext"}
    assert key("alice").public == _open(sealed()).header["from"]
