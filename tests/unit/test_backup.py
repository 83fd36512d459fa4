"""A backup opens with its passphrase, or not at all (docs/spec/backup.md)."""

import pytest

from claudemesh.crypto.backup import open_backup, seal_backup
from claudemesh.errors import ClaudemeshError

CONFIG = b'{"identity":"of alice"}'
PASSPHRASE = b"correct horse battery"
SEALED = seal_backup(CONFIG, PASSPHRASE, bytes(range(40)), operations=1, memory_bytes=8 << 20)


def _code(sealed: bytes, passphrase: bytes = PASSPHRASE) -> str:
    with pytest.raises(ClaudemeshError) as refusal:
        open_backup(sealed, passphrase)
    return refusal.value.code


def test_backup_opens_with_its_passphrase() -> None:
    assert open_backup(SEALED, PASSPHRASE) == CONFIG


def test_backup_does_not_show_its_content() -> None:
    assert CONFIG[:8] not in SEALED
    assert len(SEALED) == 52 + 16 + len(CONFIG)


def test_wrong_passphrase_opens_nothing() -> None:
    assert _code(SEALED, b"correct horse") == "secretbox_open"
    assert _code(SEALED, b"") == "secretbox_open"


@pytest.mark.parametrize("position", [12, 27, 28, 51, 52, 67, -1])
def test_altered_backup_opens_nothing(position: int) -> None:
    """Salt, nonce, tag and content: each is bound to the key or authenticated."""
    altered = bytearray(SEALED)
    altered[position] ^= 1

    assert _code(bytes(altered)) == "secretbox_open"


def test_header_is_bound_to_the_key() -> None:
    """An attacker cannot lower the cost that a passphrase was stretched with."""
    costlier = SEALED[:4] + (2).to_bytes(4, "big") + SEALED[8:]

    assert _code(costlier) == "secretbox_open"


@pytest.mark.parametrize("sealed", [b"", b"CMB2", SEALED[:51], b"CMB1" + SEALED[4:], b"XXXX" + SEALED[4:]], ids=len)
def test_other_files_are_not_backups(sealed: bytes) -> None:
    assert _code(sealed) == "backup_magic"


@pytest.mark.parametrize(
    ("operations", "memory_kib"),
    [(0, 8192), (11, 8192), (2**32 - 1, 8192), (1, 8191), (1, (1 << 20) + 1), (1, 2**32 - 1)],
)
def test_hostile_parameters_are_refused_before_any_work(operations: int, memory_kib: int) -> None:
    """A backup that asks for terabytes is refused, not tried (A44)."""
    hostile = SEALED[:4] + operations.to_bytes(4, "big") + memory_kib.to_bytes(4, "big") + SEALED[12:]

    assert _code(hostile) == "backup_params"
