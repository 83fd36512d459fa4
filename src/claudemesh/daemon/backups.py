"""Backups of the keys, encrypted under a passphrase (docs/spec/backup.md)."""

import asyncio
import os
from pathlib import Path
from typing import Final

from claudemesh.crypto.backup import SALT_BYTES, open_backup, seal_backup
from claudemesh.crypto.primitives import NONCE_BYTES
from claudemesh.daemon.config_dir import PRIVATE_FILE
from claudemesh.daemon.home import Home
from claudemesh.daemon.ipc_server import Reply
from claudemesh.daemon.schema.upkeep import BackedUp, BackupArgs, RestoreArgs, Restored
from claudemesh.errors import LocalError, Malformed, UsageError
from claudemesh.peer.config import read_config, write_config

MAX_BACKUP_BYTES: Final = 16 << 20


class Backups:
    """Writing and reading back the configuration of this daemon."""

    def __init__(self, home: Home) -> None:
        self._home = home

    async def backup(self, args: BackupArgs, reply: Reply) -> BackedUp:
        """Write the configuration to a new file.

        Raises:
            UsageError: The path is relative, or the file exists; nothing was written.
            LocalError: `disk`; no file is left behind.
        """
        path = _absolute(args.path)
        config = self._home.keystore.config
        await reply.progress("stretching the passphrase")
        sealed = await asyncio.to_thread(
            seal_backup, write_config(config), args.passphrase.encode(), os.urandom(SALT_BYTES + NONCE_BYTES)
        )
        await asyncio.to_thread(_write_new, path, sealed)
        return BackedUp(path=args.path, meshes=[mesh.alias for mesh in config.meshes])

    async def restore(self, args: RestoreArgs, reply: Reply) -> Restored:
        """Replace the configuration.

        Raises:
            LocalError: `config_exists` without `force`; nothing was changed.
            Unopenable, Malformed: The passphrase or the file is wrong; nothing was changed.
        """
        sealed = await asyncio.to_thread(_read, _absolute(args.path))
        present = self._home.keystore.config
        holds_keys = present.identity is not None or bool(present.meshes)
        if holds_keys and not args.force:
            raise LocalError("config_exists", f"{self._home.keystore.directory} holds keys")
        await reply.progress("stretching the passphrase")
        config = read_config(await asyncio.to_thread(open_backup, sealed, args.passphrase.encode()))
        await self._home.replace_config(config)
        return Restored(meshes=[mesh.alias for mesh in config.meshes], replaced=holds_keys)


def _absolute(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise UsageError("usage", "the path of a backup must be absolute")
    return path


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            sealed = file.read(MAX_BACKUP_BYTES + 1)
    except OSError as error:
        raise UsageError("usage", f"{path}: {error.strerror}") from error
    if len(sealed) > MAX_BACKUP_BYTES:
        raise Malformed("backup_magic", f"{path} is too large to be one")
    return sealed


def _write_new(path: Path, content: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    except OSError as error:
        raise UsageError("usage", f"{path}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise LocalError("disk", f"{path.name}: {error.strerror}") from error
