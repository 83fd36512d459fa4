"""Encrypted backups of a configuration (docs/spec/backup.md).

"CMB2" ‖ u32be operations ‖ u32be memory KiB ‖ salt[16] ‖ nonce[24] ‖ secretbox(config)
key = KDF(argon2id(passphrase, salt), "backup", the 52 bytes before the secretbox)
"""

from typing import Final

from claudemesh.crypto import primitives, statements
from claudemesh.errors import Malformed

MAGIC: Final = b"CMB2"
SALT_BYTES: Final = 16
OPERATIONS: Final = 3
MEMORY_BYTES: Final = 256 << 20
_MAX_OPERATIONS: Final = 10
_MIN_MEMORY_BYTES: Final = 8 << 20
_MAX_MEMORY_BYTES: Final = 1 << 30
_HEADER_BYTES: Final = 52


def seal_backup(
    config: bytes, passphrase: bytes, entropy: bytes, operations: int = OPERATIONS, memory_bytes: int = MEMORY_BYTES
) -> bytes:
    """Encrypt `config` under a passphrase.

    Args:
        entropy: 40 random bytes, the salt and the nonce.
    """
    salt, nonce = entropy[:SALT_BYTES], entropy[SALT_BYTES : SALT_BYTES + primitives.NONCE_BYTES]
    header = MAGIC + operations.to_bytes(4, "big") + (memory_bytes >> 10).to_bytes(4, "big") + salt + nonce
    stretched = primitives.argon2id(passphrase, salt, operations, memory_bytes)
    return header + primitives.secretbox(config, nonce, statements.derive(stretched, "backup", header))


def open_backup(sealed: bytes, passphrase: bytes) -> bytes:
    """Decrypt a backup.

    Raises:
        Malformed: `backup_magic`, or `backup_params` when it asks for more than 1 GiB or 10 passes.
        Unopenable: The passphrase is wrong or the file was altered.
    """
    if sealed[:4] != MAGIC or len(sealed) < _HEADER_BYTES:
        raise Malformed("backup_magic")
    operations = int.from_bytes(sealed[4:8], "big")
    memory_bytes = int.from_bytes(sealed[8:12], "big") << 10
    if not 1 <= operations <= _MAX_OPERATIONS or not _MIN_MEMORY_BYTES <= memory_bytes <= _MAX_MEMORY_BYTES:
        raise Malformed("backup_params")
    header, salt, nonce = sealed[:_HEADER_BYTES], sealed[12:28], sealed[28:_HEADER_BYTES]
    stretched = primitives.argon2id(passphrase, salt, operations, memory_bytes)
    return primitives.secretbox_open(sealed[_HEADER_BYTES:], nonce, statements.derive(stretched, "backup", header))
