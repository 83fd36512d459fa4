"""Direct messages: frame, sign, pad, box; and the same way back (docs/spec/envelope.md).

header = canonical JSON
F = 0x01 ‖ u32be len(header) ‖ header ‖ u32be len(body) ‖ body
P = F ‖ Ed25519(session, "claudemesh/1/dm" 0x00 F)
Q = P ‖ 0x80 ‖ 0x00…                      padded to a Padmé length, at least 1280
C = crypto_box_easy(Q, nonce, recipient's box key, session's box secret)
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from claudemesh.crypto import primitives, statements
from claudemesh.crypto.identity import Attestation, SessionKeys
from claudemesh.crypto.primitives import NONCE_BYTES, SIGNATURE_BYTES
from claudemesh.crypto.statements import Body, FieldType
from claudemesh.errors import BadSignature, Malformed
from claudemesh.types import BoxId

MAX_HEADER_BYTES: Final = 4_096
PADDING_FLOOR_BYTES: Final = 1_280
_FRAME_VERSION: Final = 1
_OVERHEAD_BYTES: Final = 1 + 4 + 4 + SIGNATURE_BYTES

HEADER_FIELDS: Final[dict[str, FieldType]] = {
    "v": (1,),
    "k": ("dm",),
    "mesh": "hex32",
    "from": "hex32",
    "sess": "hex32",
    "to": "hex32",
    "kid": "hex32",
    "n": "int",
    "id": "hex16",
    "ts": "int",
    "prio": ("now", "next", "low"),
    "ct": str,
    "rs": "int",
    "rh": "hex32",
    "ra": "int",
    "rg": "sig",
    "cs": "int",
}
HEADER_OPTIONAL: Final[dict[str, FieldType]] = {
    "tos": "hex32",
    "re": "hex16",
    "nb": "int",
    "exp": "int",
    "intent": ("request", "inform", "ack"),
    "root": "hex16",
    "hop": "int",
}


class Sealed(NamedTuple):
    """What the broker carries of a message: 24 random bytes and the ciphertext."""

    nonce: bytes
    ciphertext: bytes


class Opened(NamedTuple):
    """An authenticated message. `frame` and `signature` are the sender's transferable evidence."""

    header: Body
    body: bytes
    frame: bytes
    signature: bytes


def seal(header: Mapping[str, Any], body: bytes, session: SessionKeys, recipient: BoxId, nonce: bytes) -> Sealed:
    """Sign as the session, pad, and encrypt to one box key.

    Args:
        header: The fields of `HEADER_FIELDS`, all of them, and any of `HEADER_OPTIONAL`.
        recipient: X25519 public key from the verified roster, card or attestation, never from a message.
        nonce: 24 fresh random bytes.

    Raises:
        Malformed: The header breaks its layout; nothing was encrypted.
        Unopenable: The recipient's key is not usable; nothing was encrypted.
    """
    statements.check_fields(header, HEADER_FIELDS, HEADER_OPTIONAL)
    frame = _frame(statements.encode(header), body)
    signature = primitives.sign(session.sign.secret, statements.labelled("dm", frame))
    return Sealed(nonce, primitives.box(_pad(frame + signature), nonce, recipient, session.box.secret))


def open_sealed(sealed: Sealed, attestation: Attestation, secret: bytes) -> Opened:
    """Decrypt, unpad and verify one direct message, or raise: there is no partial result.

    Args:
        attestation: Verified; its box key is the sender of the box, its session the signer.
        secret: Our X25519 secret (32 bytes) for the key that the envelope names.

    Raises:
        Unopenable: `box_open`.
        Malformed: `pad`, `frame`, or a header that is not canonical or has another field set.
        BadSignature: The session did not sign these bytes.
    """
    if len(sealed.nonce) != NONCE_BYTES:
        raise Malformed("frame", "nonce")
    padded = primitives.box_open(sealed.ciphertext, sealed.nonce, attestation.box, secret)
    signed = _unpad(padded)
    header_raw, body = _unframe(signed)
    frame, signature = signed[:-SIGNATURE_BYTES], signed[-SIGNATURE_BYTES:]
    header = statements.decode(header_raw, MAX_HEADER_BYTES)
    verify_frame(frame, signature, attestation)
    statements.check_fields(header, HEADER_FIELDS, HEADER_OPTIONAL)
    return Opened(header, body, frame, signature)


def verify_frame(frame: bytes, signature: bytes, attestation: Attestation) -> None:
    """Check that the attested session signed `frame`: the transferable evidence of a message or receipt."""
    if len(signature) != SIGNATURE_BYTES:
        raise BadSignature("sig_form")
    primitives.verify(attestation.session, statements.labelled("dm", frame), signature)


def padded_length(length: int) -> int:
    """Padmé length of `length` bytes, at least `PADDING_FLOOR_BYTES`: leaks O(log log n) bits."""
    if length <= PADDING_FLOOR_BYTES:
        return PADDING_FLOOR_BYTES
    exponent = length.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (length + mask) & ~mask


def _frame(header: bytes, body: bytes) -> bytes:
    if len(header) > MAX_HEADER_BYTES:
        raise Malformed("cj_len", "header")
    return b"".join(
        (bytes((_FRAME_VERSION,)), len(header).to_bytes(4, "big"), header, len(body).to_bytes(4, "big"), body)
    )


def _unframe(signed: bytes) -> tuple[bytes, bytes]:
    end = len(signed) - SIGNATURE_BYTES
    if len(signed) < _OVERHEAD_BYTES or signed[0] != _FRAME_VERSION:
        raise Malformed("frame")
    header_end = 5 + int.from_bytes(signed[1:5], "big")
    if header_end - 5 > MAX_HEADER_BYTES or header_end + 4 > end:
        raise Malformed("frame")
    body_start = header_end + 4
    if body_start + int.from_bytes(signed[header_end:body_start], "big") != end:
        raise Malformed("frame")
    return signed[5:header_end], signed[body_start:end]


def _pad(signed: bytes) -> bytes:
    length = padded_length(len(signed) + 1)
    return signed + b"\x80" + b"\0" * (length - len(signed) - 1)


def _unpad(padded: bytes) -> bytes:
    marked = padded.rstrip(b"\0")
    if not marked.endswith(b"\x80") or len(padded) != padded_length(len(marked)):
        raise Malformed("pad")
    return marked[:-1]
