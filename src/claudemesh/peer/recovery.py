"""Recovery keys as people keep them: eight groups of four characters on paper (docs/spec/recovery.md).

    20 bytes = 16 random bytes ‖ the first 4 bytes of their digest, in Crockford's base32
    seed     = KDF(the 16 bytes, "recovery")

The digits leave out I, L, O and U; reading takes O for 0, and I or L for 1.
"""

from typing import Final

from claudemesh.crypto import primitives, statements
from claudemesh.crypto.primitives import SigningKey
from claudemesh.errors import UsageError

SECRET_BYTES: Final = 16
_CHECK_BYTES: Final = 4
_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_GROUPS: Final = 8
_READ_AS: Final = str.maketrans("OIL", "011")


def recovery_key(secret: bytes) -> SigningKey:
    """The Ed25519 pair that signs a `recover` entry, from 16 bytes."""
    return primitives.signing_key(statements.derive(secret, "recovery"))


def write_recovery(secret: bytes) -> str:
    """The 16 bytes as eight groups of four characters."""
    value = int.from_bytes(secret + _check(secret), "big")
    digits = "".join(_DIGITS[value >> shift & 31] for shift in range(155, -1, -5))
    return "-".join(digits[start : start + 4] for start in range(0, 4 * _GROUPS, 4))


def read_recovery(text: str) -> bytes:
    """The 16 bytes of what a person typed, or raise `UsageError`: a slip of one character is always noticed."""
    digits = "".join(character for character in text.upper().translate(_READ_AS) if character.isalnum())
    if len(digits) != 4 * _GROUPS or any(digit not in _DIGITS for digit in digits):
        raise UsageError("usage", "a recovery key has eight groups of four letters and digits")
    value = 0
    for digit in digits:
        value = value << 5 | _DIGITS.index(digit)
    raw = value.to_bytes(SECRET_BYTES + _CHECK_BYTES, "big")
    if _check(raw[:SECRET_BYTES]) != raw[SECRET_BYTES:]:
        raise UsageError("usage", "the recovery key is mistyped")
    return raw[:SECRET_BYTES]


def _check(secret: bytes) -> bytes:
    return bytes.fromhex(statements.digest("recovery", secret))[:_CHECK_BYTES]
