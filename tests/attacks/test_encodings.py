"""A31: bytes that are not what they must be."""

import pytest

from claudemesh.crypto import envelope, identity, primitives, statements
from claudemesh.crypto.frames import Sealed
from claudemesh.errors import Malformed, Unopenable
from claudemesh.types import MeshId, UnixMillis
from tests.attacks.search import spellings

MALFORMED = [
    b'{"a":1,"a":1}',
    b'{"a": 1}',
    b'{"b":1,"a":2}',
    b'{"a":1.0}',
    b'{"a":1e3}',
    b'{"a":null}',
    b'{"a":9007199254740992}',
    b'{"a":NaN}',
    b'{"a":"\\u0041"}',
    b"[1]",
    b'{"A":1}',
    b'{"a":-0}',
    b'{"a":"\xc3\xa9"}',
    b'{"a":' + b"[" * 500 + b"]" * 500 + b"}",
    b'{"a":"\\ud800"}',
    b"",
    b"\xff",
    b'{"a":1}\n',
    b'{"a":01}',
]


@pytest.mark.parametrize("raw", MALFORMED)
def test_a31_a_malformed_statement_is_refused(raw: bytes) -> None:
    """A31: only the canonical encoding of a value is accepted; expected a `cj_…` code."""
    with pytest.raises(Malformed, match="cj_"):
        statements.decode(raw)


@pytest.mark.parametrize("depth", [7, 1_000, 100_000])
def test_a31_deep_nesting_exhausts_nothing(depth: int) -> None:
    """A31: refused as too long or too deep, not by a stack that overflows."""
    raw = b'{"a":' + b"[" * depth + b"]" * depth + b"}"

    with pytest.raises(Malformed, match="cj_"):
        statements.decode(raw)


@pytest.mark.parametrize(
    "padded", [b"", b"\x80", bytes(1280), b"\x80" + bytes(1000), b"x" * 1280, b"x\x80" + bytes(1279)]
)
def test_a31_bad_padding_is_refused(padded: bytes) -> None:
    """A31: expected `pad`, from a box that opens."""
    alice, bob = identity.session_keys(bytes(range(64))), primitives.box_key(bytes(32))
    peer = primitives.signing_key(bytes(32))
    attestation = identity.attest(peer, MeshId("00" * 32), alice, UnixMillis(1), 1_000)
    sealed = Sealed(bytes(24), primitives.box(padded, bytes(24), bob.public, alice.box.secret))

    with pytest.raises(Malformed, match="pad"):
        envelope.open_sealed(sealed, identity.open_attestation(attestation), bob.secret)


@pytest.mark.parametrize("point", ["00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f", "", "zz" * 32, "00" * 31])
def test_a31_a_point_of_low_order_is_no_key(point: str) -> None:
    """A31: nothing is encrypted to it; expected `box_open`."""
    with pytest.raises(Unopenable, match="box_open"):
        primitives.box(b"x", bytes(24), point, bytes(range(32)))


def test_the_search_finds_every_spelling() -> None:
    """The instrument of A11 and N01: a needle is found raw, in hex, and in base64 at each alignment."""
    needle = b"a secret of the kind"
    hidden = [
        b"xx" + needle,
        needle.hex().encode(),
        *(statements.to_base64url(b"?" * shift + needle + b"tail").encode() for shift in range(4)),
    ]

    missed = [hay for hay in hidden if not any(one in hay for one in spellings(needle))]

    assert missed == []
