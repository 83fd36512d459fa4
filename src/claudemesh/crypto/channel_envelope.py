"""Channel messages: a signed frame in a secretbox, and the same way back (docs/spec/channels.md §4).

C = crypto_secretbox_easy(Q, nonce, key of the channel in the epoch), Q as in `crypto.frames`, context `ch`

Every member holds the key; the signature inside says which of them wrote.
"""

from typing import Any, Final

from claudemesh.crypto import frames, primitives
from claudemesh.crypto.frames import Layout, Opened, Sealed
from claudemesh.crypto.identity import Attestation, SessionKeys
from claudemesh.crypto.primitives import NONCE_BYTES
from claudemesh.crypto.statements import FieldType
from claudemesh.errors import Malformed

HEADER_FIELDS: Final[dict[str, FieldType]] = frames.REQUIRED_FIELDS | {"k": ("ch",), "chan": "hex16", "ep": "hex32"}
HEADER_OPTIONAL: Final[dict[str, FieldType]] = frames.OPTIONAL_FIELDS
_LAYOUT: Final = Layout("ch", HEADER_FIELDS, HEADER_OPTIONAL)


def seal(header: dict[str, Any], body: bytes, session: SessionKeys, key: bytes, nonce: bytes) -> Sealed:
    """Sign as the session, pad, and encrypt under a channel key.

    Args:
        header: The fields of `HEADER_FIELDS`, all of them, and any of `HEADER_OPTIONAL`.
        key: `epochs.channel_key` (32 bytes) of the channel and epoch that the header names.
        nonce: 24 fresh random bytes.

    Raises:
        Malformed: The header breaks its layout; nothing was encrypted.
    """
    padded = frames.pack(_LAYOUT, header, body, session.sign)
    return Sealed(nonce, primitives.secretbox(padded, nonce, key))


def open_sealed(sealed: Sealed, attestation: Attestation, key: bytes) -> Opened:
    """Decrypt, unpad and verify one channel message, or raise: there is no partial result.

    Args:
        attestation: Verified; its session must be the signer.
        key: The channel key (32 bytes) of the epoch that the envelope names; no other is tried.

    Raises:
        Unopenable: `secretbox_open`.
        Malformed: `pad`, `frame`, or a header that is not canonical or has another field set.
        BadSignature: The session did not sign these bytes.
    """
    if len(sealed.nonce) != NONCE_BYTES:
        raise Malformed("frame", "nonce")
    padded = primitives.secretbox_open(sealed.ciphertext, sealed.nonce, key)
    return frames.unpack(_LAYOUT, padded, attestation.session)


def verify_frame(frame: bytes, signature: bytes, attestation: Attestation) -> None:
    """Check that the attested session signed `frame`: the transferable evidence of a channel message."""
    frames.verify(_LAYOUT.context, frame, signature, attestation.session)


def read_frame(frame: bytes, signature: bytes, attestation: Attestation) -> Opened:
    """Read a channel message that somebody kept as evidence; raises as `open_sealed`, but for its key."""
    return frames.read(_LAYOUT, frame, signature, attestation.session)
