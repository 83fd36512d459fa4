"""A channel message opens whole, as of the session that wrote it, or not at all (docs/spec/channels.md §4)."""

from typing import Any

import pytest

from claudemesh.crypto import channel_envelope, frames, primitives, statements
from claudemesh.crypto.channel_envelope import open_sealed, seal, verify_frame
from claudemesh.crypto.frames import Opened, Sealed
from claudemesh.crypto.identity import Attestation
from claudemesh.crypto.statements import Body
from claudemesh.errors import ClaudemeshError, Malformed
from tests import messages
from tests.messages import NONCE, attestation, session
from tests.rosters import channel

KEY = bytes(range(32))


def header(**changes: Any) -> Body:
    """All required fields of a message from Alice to a channel."""
    fields = {name: value for name, value in messages.header().items() if name not in ("to", "kid")}
    return fields | {"k": "ch", "chan": channel("deploys"), "ep": "e0" * 32} | changes


def sealed(body: bytes = b"hello all", **changes: Any) -> Sealed:
    return seal(header(**changes), body, session("session"), KEY, NONCE)


def _code(message: Sealed, sender: Attestation | None = None, key: bytes = KEY) -> str:
    with pytest.raises(ClaudemeshError) as refusal:
        open_sealed(message, sender or attestation(), key)
    return refusal.value.code


def _open(message: Sealed) -> Opened:
    return open_sealed(message, attestation(), KEY)


@pytest.mark.parametrize("body", [b"", b"hello all", b"\0" * 100, "žluťoučký".encode(), b"x" * 524_288])
def test_sealed_message_opens_to_the_same_header_and_body(body: bytes) -> None:
    opened = _open(sealed(body, prio="now", re="ab" * 16))

    assert (opened.header, opened.body) == (header(prio="now", re="ab" * 16), body)


def test_short_texts_have_one_ciphertext_length() -> None:
    lengths = {len(sealed(b"x" * size).ciphertext) for size in (0, 1, 100, 400)}

    assert lengths == {frames.PADDING_FLOOR_BYTES + 16}


def test_another_key_does_not_open_it() -> None:
    assert _code(sealed(), key=bytes(32)) == "secretbox_open"


@pytest.mark.parametrize("ciphertext", [b"", b"hello plaintext", b"\0" * 16, b"\0" * 1296])
def test_plaintext_is_never_taken_for_a_message(ciphertext: bytes) -> None:
    """There is no fallback (A16)."""
    assert _code(Sealed(b"\0" * 24, ciphertext)) == "secretbox_open"


@pytest.mark.parametrize("length", [0, 23, 25])
def test_nonce_has_24_bytes(length: int) -> None:
    assert _code(Sealed(b"\0" * length, sealed().ciphertext)) == "frame"


def test_holder_of_the_key_cannot_write_as_another() -> None:
    """A21: the secretbox proves membership, the signature proves the sender."""
    assert _code(sealed(), attestation("alice", "other session")) == "bad_sig"


def test_signature_of_a_direct_message_is_none_of_a_channel() -> None:
    """Nor can a member show what was written in a channel as if it had been a direct message."""
    opened = _open(sealed())

    verify_frame(opened.frame, opened.signature, attestation())
    with pytest.raises(ClaudemeshError, match="bad_sig"):
        frames.verify("dm", opened.frame, opened.signature, session("session").id)
    with pytest.raises(ClaudemeshError, match="sig_form"):
        verify_frame(opened.frame, opened.signature[:-1], attestation())


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        (header(k="dm"), "field_type"),
        (header(tos="ab" * 32), "field"),
        (header(to="ab" * 32), "field"),
        (header(chan="ab" * 32), "field_type"),
        (header(ep="ab" * 16), "field_type"),
        (messages.header(), "field"),
    ],
)
def test_header_has_its_exact_fields(fields: Body, code: str) -> None:
    """A recipient refuses what a sender that obeys no rule puts inside."""
    layout = frames.Layout("ch", dict.fromkeys(fields, object), {})
    padded = frames.pack(layout, fields, b"x", session("session").sign)

    assert _code(Sealed(NONCE, primitives.secretbox(padded, NONCE, KEY))) == code


@pytest.mark.parametrize("changes", [{"k": "dm"}, {"chan": "x"}, {"kid": "ab" * 32}, {"n": -1}], ids=str)
def test_header_that_no_recipient_would_take_is_not_sealed(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        sealed(**changes)


def test_longest_header_fits_its_limit() -> None:
    numbers = dict.fromkeys(("n", "ts", "rs", "ra", "cs", "nb", "exp", "hop"), 2**53 - 1)
    ids = {"re": "ff" * 16, "root": "ff" * 16}
    fields = header(ct="x" * 1024, rg="ff" * 64, intent="request", **ids, **numbers)

    message = seal(fields, b"", session("session"), KEY, NONCE)

    assert set(fields) == set(channel_envelope.HEADER_FIELDS) | set(channel_envelope.HEADER_OPTIONAL)
    assert len(statements.encode(fields)) <= frames.MAX_HEADER_BYTES
    assert _open(message).header == fields
