"""Ed25519, X25519 boxes, secretbox, SHA-256, HMAC and Argon2id; the only import of PyNaCl.

Source: docs/protocol.md, suite 1. No function here chooses a key, a nonce or a fallback.
"""

import hashlib
import hmac
from functools import lru_cache
from typing import NamedTuple

import nacl.bindings as sodium
import nacl.exceptions

from claudemesh.errors import BadSignature, Unopenable

SEED_BYTES = 32
NONCE_BYTES = 24
KEY_BYTES = 32
SIGNATURE_BYTES = 64


class SigningKey(NamedTuple):
    """An Ed25519 key pair; `secret` is seed ‖ public (64 bytes)."""

    public: str
    secret: bytes

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public[:8]}…)"


class BoxKey(NamedTuple):
    """An X25519 key pair; `secret` is the scalar (32 bytes)."""

    public: str
    secret: bytes

    def __repr__(self) -> str:
        return f"BoxKey(public={self.public[:8]}…)"


def signing_key(seed: bytes) -> SigningKey:
    """Derive the Ed25519 pair of a 32-byte seed."""
    public, secret = sodium.crypto_sign_seed_keypair(seed)
    return SigningKey(public.hex(), secret)


def box_key(seed: bytes) -> BoxKey:
    """Derive the X25519 pair of a 32-byte seed."""
    public, secret = sodium.crypto_box_seed_keypair(seed)
    return BoxKey(public.hex(), secret)


def box_key_of(secret: bytes) -> BoxKey:
    """Rebuild the X25519 pair of a stored 32-byte secret."""
    return BoxKey(sodium.crypto_scalarmult_base(secret).hex(), secret)


def sign(secret: bytes, message: bytes) -> bytes:
    """Sign `message`; returns the 64-byte detached signature."""
    return bytes(sodium.crypto_sign(message, secret)[:SIGNATURE_BYTES])


def verify(public: str, message: bytes, signature: bytes) -> None:
    """Check a detached signature.

    Raises:
        BadSignature: It does not match, or the key is not a point of the curve.
    """
    try:
        sodium.crypto_sign_open(signature + message, bytes.fromhex(public))
    except (nacl.exceptions.CryptoError, ValueError, TypeError) as error:
        raise BadSignature("bad_sig") from error


@lru_cache(maxsize=16_384)
def _shared_key(public: str, secret: bytes) -> bytes:
    """X25519 agreement: 60 µs of each box, and the same for every message between two keys."""
    return bytes(sodium.crypto_box_beforenm(bytes.fromhex(public), secret))


def forget_shared_keys() -> None:
    """Drop the cached agreements, so that a deleted box secret leaves nothing behind that opens old messages."""
    _shared_key.cache_clear()


def box(plaintext: bytes, nonce: bytes, public: str, secret: bytes) -> bytes:
    """`crypto_box_easy` to `public` (64 hex digits).

    Raises:
        Unopenable: The public key is of low order or not 32 bytes; nothing was encrypted.
    """
    try:
        return bytes(sodium.crypto_box_easy_afternm(plaintext, nonce, _shared_key(public, secret)))
    except (nacl.exceptions.CryptoError, ValueError, TypeError) as error:
        raise Unopenable("box_open") from error


def box_open(ciphertext: bytes, nonce: bytes, public: str, secret: bytes) -> bytes:
    """Open a `crypto_box_easy` from `public`, or raise `Unopenable`."""
    try:
        return bytes(sodium.crypto_box_open_easy_afternm(ciphertext, nonce, _shared_key(public, secret)))
    except (nacl.exceptions.CryptoError, ValueError, TypeError) as error:
        raise Unopenable("box_open") from error


def box_once(plaintext: bytes, nonce: bytes, public: str, secret: bytes) -> bytes:
    """`crypto_box_easy` for a pair of keys that meets once: nothing of it stays in memory.

    Raises:
        Unopenable: The public key is of low order or not 32 bytes; nothing was encrypted.
    """
    try:
        return bytes(sodium.crypto_box_easy(plaintext, nonce, bytes.fromhex(public), secret))
    except (nacl.exceptions.CryptoError, ValueError, TypeError) as error:
        raise Unopenable("box_open") from error


def box_open_once(ciphertext: bytes, nonce: bytes, public: str, secret: bytes) -> bytes:
    """Open a `box_once` from `public`, or raise `Unopenable`."""
    try:
        return bytes(sodium.crypto_box_open_easy(ciphertext, nonce, bytes.fromhex(public), secret))
    except (nacl.exceptions.CryptoError, ValueError, TypeError) as error:
        raise Unopenable("box_open") from error


def secretbox(plaintext: bytes, nonce: bytes, key: bytes) -> bytes:
    """`crypto_secretbox_easy` under a 32-byte key."""
    return bytes(sodium.crypto_secretbox_easy(plaintext, nonce, key))


def secretbox_open(ciphertext: bytes, nonce: bytes, key: bytes) -> bytes:
    """Open a `crypto_secretbox_easy`, or raise `Unopenable`."""
    try:
        return bytes(sodium.crypto_secretbox_open_easy(ciphertext, nonce, key))
    except (nacl.exceptions.CryptoError, ValueError, TypeError) as error:
        raise Unopenable("secretbox_open") from error


def sha256(message: bytes) -> bytes:
    """SHA-256 of `message`, 32 bytes."""
    return hashlib.sha256(message).digest()


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256, 32 bytes."""
    return hmac.digest(key, message, "sha256")


def argon2id(passphrase: bytes, salt: bytes, operations: int, memory_bytes: int) -> bytes:
    """Stretch a passphrase to 32 bytes; `salt` has 16 bytes."""
    return bytes(
        sodium.crypto_pwhash_alg(
            KEY_BYTES, passphrase, salt, operations, memory_bytes, sodium.crypto_pwhash_ALG_ARGON2ID13
        )
    )
