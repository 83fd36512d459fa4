"""A44: what a thief of a backup file can do with it."""

import os
import resource

import pytest

from claudemesh.crypto.backup import open_backup, seal_backup
from claudemesh.errors import Malformed, Unopenable

PASSPHRASE = b"correct horse battery"
CONFIG = b'{"secret":"0123456789abcdef"}'


@pytest.fixture(scope="module")
def backup() -> bytes:
    """A small-memory backup, so that guesses are quick."""
    return seal_backup(CONFIG, PASSPHRASE, os.urandom(40), operations=1, memory_bytes=8 << 20)


def test_a44_the_passphrase_opens_a_backup(backup: bytes) -> None:
    """A44: control; without it the refusals below would prove nothing."""
    assert open_backup(backup, PASSPHRASE) == CONFIG
    assert b"secret" not in backup


def test_a44_a_wrong_passphrase_opens_nothing(backup: bytes) -> None:
    """A44: expected `secretbox_open`."""
    with pytest.raises(Unopenable, match="secretbox_open"):
        open_backup(backup, b"correct horse batterx")


@pytest.mark.parametrize("position", [12, 27, 28, 51, 52, 60, -1])
def test_a44_a_flipped_bit_opens_nothing(backup: bytes, position: int) -> None:
    """A44: salt, nonce and ciphertext are all bound; expected `secretbox_open`."""
    damaged = bytearray(backup)
    damaged[position] ^= 1

    with pytest.raises(Unopenable, match="secretbox_open"):
        open_backup(bytes(damaged), PASSPHRASE)


@pytest.mark.parametrize(
    ("start", "parameter"),
    [(4, b"\0\0\0\0"), (4, b"\xff\xff\xff\xff"), (8, b"\xff\xff\xff\xff"), (8, b"\0\0\0\1"), (8, b"\0\x20\0\0")],
)
def test_a44_hostile_argon2_parameters_are_no_memory_bomb(backup: bytes, start: int, parameter: bytes) -> None:
    """A44: refused by their numbers, before anything is allocated; expected `backup_params`."""
    hostile = backup[:start] + parameter + backup[start + 4 :]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(Malformed, match="backup_params"):
        open_backup(hostile, PASSPHRASE)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@pytest.mark.parametrize("operations", [2, 3])
def test_a44_weakened_parameters_open_nothing(backup: bytes, operations: int) -> None:
    """A44: the parameters themselves are bound to the key; expected `secretbox_open`."""
    hostile = backup[:4] + operations.to_bytes(4, "big") + backup[8:]

    with pytest.raises(Unopenable, match="secretbox_open"):
        open_backup(hostile, PASSPHRASE)


@pytest.mark.parametrize("length", [0, 4, 51, 52, 67])
def test_a44_a_truncated_backup_opens_nothing(backup: bytes, length: int) -> None:
    """A44: no length makes it crash or open."""
    with pytest.raises((Malformed, Unopenable)):
        open_backup(backup[:length], PASSPHRASE)
