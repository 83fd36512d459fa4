"""Direct messages: a signed frame in a box, and the same way back (docs/spec/envelope.md).

C = crypto_box_easy(Q, nonce, recipient's box key, session's box secret), Q as in `crypto.frames`, context `dm`
"""

from typing import Any, Final

from claudemesh.crypto import frames, primitives
from claudemesh.crypto.frames import MAX_HEADER_BYTES, PADDING_FLOOR_BYTES, Layout, Opened, Sealed, padded_length
from claudemesh.crypto.identity import Attestation, SessionKeys
from claudemesh.crypto.primitives import NONCE_BYTES
from claudemesh.crypto.statements import FieldType
from claudemesh.errors import Malformed
from claudemesh.types import BoxId

__all__ = [
    "HEADER_FIELDS",
    "HEADER_OPTIONAL",
    "MAX_HEADER_BYTES",
    "PADDING_FLOOR_BYTES",
    "Opened",
    "Sealed",
    "open_sealed",
    "padded_length",
    "seal",
    "verify_frame",
]

HEADER_FIELDS: Final[dict[str, FieldType]] = frames.REQUIRED_FIELDS | {"k": ("dm",), "to": "hex32", "kid": "hex32"}
HEADER_OPTIONAL: Final[dict[str, FieldType]] = frames.OPTIONAL_FIELDS | {"tos": "hex32"}
_LAYOUT: Final = Layout("dm", HEADER_FIELDS, HEADER_OPTIONAL)


def seal(header: dict[str, Any], body: bytes, session: SessionKeys, recipient: BoxId, nonce: bytes) -> Sealed:
    """Sign as the session, pad, and encrypt to one box key.

    Args:
        header: The fields of `HEADER_FIELDS`, all of them, and any of `HEADER_OPTIONAL`.
        recipient: X25519 public key from the verified roster, card or attestation, never from a message.
        nonce: 24 fresh random bytes.

    Raises:
        Malformed: The header breaks its layout; nothing was encrypted.
        Unopenable: The recipient's key is not usable; nothing was encrypted.
    """
    padded = frames.pack(_LAYOUT, header, body, session.sign)
    return Sealed(nonce, primitives.box(padded, nonce, recipient, session.box.secret))


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
    return frames.unpack(_LAYOUT, padded, attestation.session)


def verify_frame(frame: bytes, signature: bytes, attestation: Attestation) -> None:
    """Check that the attested session signed `frame`: the transferable evidence of a message or receipt."""
    frames.verify(_LAYOUT.context, frame, signature, attestation.session)
