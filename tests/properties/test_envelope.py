"""A message opens to what was sealed, or not at all (docs/spec/envelope.md)."""

import random

from hypothesis import given
from hypothesis import strategies as st

from claudemesh.crypto import primitives
from claudemesh.crypto.envelope import Opened, Sealed, open_sealed, padded_length, seal
from claudemesh.errors import ClaudemeshError
from claudemesh.types import BoxId
from tests.messages import NONCE, attestation, header, sealed, session
from tests.rosters import box

ATTESTATION = attestation()
MESSAGE = sealed()
BOB = box("bob").secret


def _opened(message: Sealed) -> Opened | None:
    try:
        return open_sealed(message, ATTESTATION, BOB)
    except ClaudemeshError:
        return None


@given(st.binary(max_size=4096), st.binary(min_size=24, max_size=24), st.sampled_from(["now", "next", "low"]))
def test_sealed_message_opens_to_itself(body: bytes, nonce: bytes, priority: str) -> None:
    fields = header(prio=priority)

    message = seal(fields, body, session("session"), BoxId(box("bob").public), nonce)
    opened = open_sealed(message, ATTESTATION, BOB)

    assert (opened.header, opened.body) == (fields, body)


@given(st.integers(0, 524_288))
def test_ciphertext_tells_the_padded_length_only(length: int) -> None:
    """Padmé: at most an eighth more, and the length of the pad follows from the length of the whole."""
    padded = padded_length(length)

    assert padded >= max(length, 1280)
    assert padded == padded_length(padded)
    assert padded <= max(1280, length + length // 8)


@given(st.integers(0, len(MESSAGE.ciphertext) - 1), st.integers(1, 255))
def test_changed_byte_of_the_ciphertext_never_opens(position: int, difference: int) -> None:
    changed = bytearray(MESSAGE.ciphertext)
    changed[position] ^= difference

    assert _opened(Sealed(NONCE, bytes(changed))) is None


@given(st.integers(0, 23), st.integers(1, 255))
def test_changed_byte_of_the_nonce_never_opens(position: int, difference: int) -> None:
    changed = bytearray(NONCE)
    changed[position] ^= difference

    assert _opened(Sealed(bytes(changed), MESSAGE.ciphertext)) is None


@given(st.binary(max_size=3000), st.binary(max_size=30))
def test_arbitrary_bytes_never_open(ciphertext: bytes, nonce: bytes) -> None:
    assert _opened(Sealed(nonce, ciphertext)) is None


@given(st.integers(0, 1279), st.integers(1, 255))
def test_authentic_sender_cannot_send_a_changed_frame(position: int, difference: int) -> None:
    """Behind the box, every byte of frame, signature and padding counts."""
    plain = bytearray(primitives.box_open(MESSAGE.ciphertext, NONCE, session("session").box.public, BOB))
    plain[position] ^= difference
    again = primitives.box(bytes(plain), NONCE, box("bob").public, session("session").box.secret)

    assert _opened(Sealed(NONCE, again)) is None


def test_mutated_messages_never_open_and_never_crash() -> None:
    """Five hundred of them: bytes replaced, cut, repeated and inserted, in and behind the box."""
    source = random.Random(1)
    plain = primitives.box_open(MESSAGE.ciphertext, NONCE, session("session").box.public, BOB)

    for _ in range(250):
        outside = Sealed(NONCE, _mutated(MESSAGE.ciphertext, source))
        inside = primitives.box(_mutated(plain, source), NONCE, box("bob").public, session("session").box.secret)
        assert _opened(outside) is None
        assert _opened(Sealed(NONCE, inside)) is None


def _mutated(raw: bytes, source: random.Random) -> bytes:
    start = source.randrange(len(raw))
    end = min(len(raw), start + source.randrange(1, 40))
    noise = bytes(source.randrange(256) for _ in range(end - start))
    mutated = source.choice(
        [
            raw[:start] + noise + raw[end:],
            raw[:start] + raw[end:],
            raw[:start] + noise + raw[start:],
            raw[:end] + raw[start:],
            raw[:start],
        ]
    )
    return mutated if mutated != raw else raw[1:]
