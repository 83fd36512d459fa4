"""The broker's signing key: a seed of 32 bytes in a file of its own (docs/spec/broker.md §1)."""

import os
import secrets
import stat
import sys
from pathlib import Path
from typing import Final

from claudemesh.crypto import primitives
from claudemesh.crypto.primitives import SigningKey
from claudemesh.errors import LocalError

_OWNER_ONLY: Final = 0o600
_NO_KEY: Final = "holds no key: put it back from your copy; without it no mesh accepts this broker"


def load_key(path: Path | None) -> SigningKey:
    """Read the key, or make one where there is none yet.

    Args:
        path: 64 hex digits and a line end; None makes a key that is not stored.

    Raises:
        LocalError: `config_mode` somebody else can read or change the file, or it is a link;
            `config_damaged` it holds no seed; `disk`. The file was not changed.
    """
    if path is None:
        return primitives.signing_key(secrets.token_bytes(primitives.SEED_BYTES))
    try:
        seed = _read(path) if os.path.lexists(path) else _create(path)
    except FileExistsError:
        seed = _read(path)
    except OSError as error:
        raise LocalError("disk", f"{path}: {error.strerror}") from error
    return primitives.signing_key(seed)


def _create(path: Path) -> bytes:
    seed = secrets.token_bytes(primitives.SEED_BYTES)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(seed.hex().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # unlike a rename, it fails when somebody else was faster
    finally:
        temporary.unlink()
    return seed


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) or (sys.platform != "win32" and mode & 0o077):
            raise LocalError("config_mode", f"chmod 600 {path}")
        text = file.read(256).strip()
    try:
        seed = bytes.fromhex(text.decode())
    except ValueError as error:
        raise LocalError("config_damaged", f"{path} {_NO_KEY}") from error
    if len(seed) != primitives.SEED_BYTES:
        raise LocalError("config_damaged", f"{path} {_NO_KEY}")
    return seed
