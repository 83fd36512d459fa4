"""What direct and channel messages share: a signed, padded frame (docs/spec/envelope.md §2).

header = canonical JSON
F = 0x01 ‖ u32be len(header) ‖ header ‖ u32be len(body) ‖ body
P = F ‖ Ed25519(session, "claudemesh/1/" context 0x00 F)
Q = P ‖ 0x80 ‖ 0x00…                      padded to a Padmé length, at least 1280
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from claudemesh.crypto import primitives, statements
from claudemesh.crypto.primitives import SIGNATURE_BYTES, SigningKey
from claudemesh.crypto.statements import Body, FieldSet, FieldType
from claudemesh.errors import BadSignature, Malformed
from claudemesh.types import SessionId

MAX_HEADER_BYTES: Final = 4_096
PADDING_FLOOR_BYTES: Final = 1_280
_FRAME_VERSION: Final = 1
_OVERHEAD_BYTES: Final = 1 + 4 + 4

REQUIRED_FIELDS: Final[dict[str, FieldType]] = {
    "v": (1,),
    "mesh": "hex32",
    "from": "hex32",
    "sess": "hex32",
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
"""Header fields of every message; each kind adds whom it is for."""
OPTIONAL_FIELDS: Final[dict[str, FieldType]] = {
    "re": "hex16",
    "nb": "int",
    "exp": "int",
    "intent": ("request", "inform", "ack"),
    "root": "hex16",
    "hop": "int",
}


class Layout:
    """One kind of message: the context that it is signed under, and the exact fields of its header."""

    __slots__ = ("context", "fields")

    def __init__(self, context: str, required: Mapping[str, FieldType], optional: Mapping[str, FieldType]) -> None:
        self.context = context
        self.fields = FieldSet(required, optional)


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


def pack(layout: Layout, header: dict[str, Any], body: bytes, session: SigningKey) -> bytes:
    """Frame, sign and pad a message: the plaintext of its encryption.

    Raises:
        Malformed: The header breaks its layout; nothing was signed.
    """
    frame = _frame(statements.encode_fields(header, layout.fields), body)
    return _pad(frame + primitives.sign(session.secret, statements.labelled(layout.context, frame)))


def unpack(layout: Layout, padded: bytes, session: SessionId) -> Opened:
    """Unpad and verify a decrypted message, or raise: there is no partial result.

    Args:
        session: The attested session that must have signed.

    Raises:
        Malformed: `pad`, `frame`, or a header that is not canonical or has another field set.
        BadSignature: The session did not sign these bytes under this context.
    """
    signed = _unpad(padded)
    return read(layout, signed[:-SIGNATURE_BYTES], signed[-SIGNATURE_BYTES:], session)


def read(layout: Layout, frame: bytes, signature: bytes, session: SessionId) -> Opened:
    """Verify a frame that is kept with its signature; raises as `unpack`."""
    header_raw, body = _unframe(frame)
    header = statements.decode_fields(header_raw, layout.fields, MAX_HEADER_BYTES)
    if header is not None:
        verify(layout.context, frame, signature, session)
        return Opened(header, body, frame, signature)
    header = statements.decode(header_raw, MAX_HEADER_BYTES)
    verify(layout.context, frame, signature, session)
    statements.check_fields(header, layout.fields.required, layout.fields.optional)
    return Opened(header, body, frame, signature)


def verify(context: str, frame: bytes, signature: bytes, session: SessionId) -> None:
    """Check that `session` signed `frame` as a message of this context, or raise `BadSignature`."""
    if len(signature) != SIGNATURE_BYTES:
        raise BadSignature("sig_form")
    primitives.verify(session, statements.labelled(context, frame), signature)


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


def _unframe(frame: bytes) -> tuple[bytes, bytes]:
    end = len(frame)
    if end < _OVERHEAD_BYTES or frame[0] != _FRAME_VERSION:
        raise Malformed("frame")
    header_end = 5 + int.from_bytes(frame[1:5], "big")
    if header_end - 5 > MAX_HEADER_BYTES or header_end + 4 > end:
        raise Malformed("frame")
    body_start = header_end + 4
    if body_start + int.from_bytes(frame[header_end:body_start], "big") != end:
        raise Malformed("frame")
    return frame[5:header_end], frame[body_start:end]


def _pad(signed: bytes) -> bytes:
    length = padded_length(len(signed) + 1)
    return signed + b"\x80" + b"\0" * (length - len(signed) - 1)


def _unpad(padded: bytes) -> bytes:
    marked = padded.rstrip(b"\0")
    if not marked.endswith(b"\x80") or len(padded) != padded_length(len(marked)):
        raise Malformed("pad")
    return marked[:-1]
