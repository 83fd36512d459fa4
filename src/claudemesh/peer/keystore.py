"""config.json and the directory it lives in: modes, atomic writes, one process at a time (docs/spec/storage.md §1).

Only this module writes secrets to disk. A file that others may read, that is a symbolic link or that is
damaged is refused with a code of its own; nothing is repaired without a person.
"""

import contextlib
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import Final, Self

import msgspec

from claudemesh.errors import AddressError, LocalError
from claudemesh.peer.config import Config, MeshKeys, UserKeys, make_user, read_config, write_config
from claudemesh.peer.runtime import Runtime

CONFIG_FILE: Final = "config.json"
LOCK_FILE: Final = "daemon.lock"
JOURNAL_FILE: Final = "state.db"
_TEMPORARY_PREFIX: Final = ".config-"
_POSIX: Final = os.name == "posix"


def default_directory() -> Path:
    """`$CLAUDEMESH_CONFIG_DIR`, or `~/.claudemesh`."""
    return Path(os.environ.get("CLAUDEMESH_CONFIG_DIR") or Path.home() / ".claudemesh")


class Keystore:
    """The opened configuration of one directory. While it is open, no other process has it."""

    def __init__(self, directory: Path, config: Config, lock: int) -> None:
        self.directory = directory
        self.config = config
        self._lock: int | None = lock

    @classmethod
    def open(cls, directory: Path | None = None) -> Self:
        """Lock and read a configuration directory, creating it (0700) when absent.

        Raises:
            LocalError: `config_mode`, `config_damaged`, `config_locked` or `disk`; nothing was changed.
        """
        directory = directory or default_directory()
        _open_directory(directory)
        lock = take_lock(directory / LOCK_FILE)
        try:
            for leftover in directory.glob(_TEMPORARY_PREFIX + "*"):
                leftover.unlink(missing_ok=True)
            path = directory / CONFIG_FILE
            config = read_config(read_private(path)) if path.is_symlink() or path.exists() else Config()
        except BaseException:
            os.close(lock)
            raise
        return cls(directory, config, lock)

    def close(self) -> None:
        """Let another process have the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def journal_path(self) -> Path:
        return self.directory / JOURNAL_FILE

    @property
    def meshes(self) -> list[MeshKeys]:
        return self.config.meshes

    def find_mesh(self, name: str | None) -> MeshKeys:
        """The mesh of an alias or of the first 8 or more digits of its id; None when there is only one.

        Raises:
            AddressError: `no_mesh`, `ambiguous_mesh` or `unknown_mesh_alias`.
        """
        usable = [mesh for mesh in self.meshes if not mesh.joining]
        if name is None:
            if not usable:
                raise AddressError("no_mesh")
            if len(usable) > 1:
                raise AddressError("ambiguous_mesh", ", ".join(mesh.alias for mesh in usable))
            return usable[0]
        found = [mesh for mesh in usable if mesh.alias == name]
        if not found and len(name) >= 8:
            found = [mesh for mesh in usable if mesh.mesh.startswith(name.lower())]
        if not found:
            raise AddressError("unknown_mesh_alias", name)
        if len(found) > 1:
            raise AddressError("ambiguous_mesh", ", ".join(mesh.alias for mesh in found))
        return found[0]

    def mesh(self, mesh: str) -> MeshKeys:
        """The mesh with exactly this id; raises `AddressError` when it is not here."""
        for known in self.meshes:
            if known.mesh == mesh:
                return known
        raise AddressError("unknown_mesh_alias", mesh[:8])

    def identity(self, runtime: Runtime) -> UserKeys:
        """This configuration's user, made at first use."""
        if self.config.identity is None:
            self.save(msgspec.structs.replace(self.config, identity=make_user(runtime.entropy(32))))
        assert self.config.identity is not None
        return self.config.identity

    def put_mesh(self, keys: MeshKeys) -> None:
        """Add a mesh, or replace the one with the same id and peer."""
        others = [mesh for mesh in self.meshes if (mesh.mesh, mesh.peer.sign) != (keys.mesh, keys.peer.sign)]
        self.save(msgspec.structs.replace(self.config, meshes=[*others, keys]))

    def remove_mesh(self, keys: MeshKeys) -> None:
        """Forget a mesh and its keys, for good."""
        kept = [mesh for mesh in self.meshes if (mesh.mesh, mesh.peer.sign) != (keys.mesh, keys.peer.sign)]
        self.save(msgspec.structs.replace(self.config, meshes=kept))

    def set_labels(self, name: str, device: str) -> None:
        """Remember what this user calls itself and this machine, for the next mesh."""
        if (name, device) != (self.config.name, self.config.device):
            self.save(msgspec.structs.replace(self.config, name=name, device=device))

    def free_alias(self, wanted: str) -> str:
        """`wanted`, or the first of `wanted-2`, `wanted-3` … that no mesh has."""
        taken = {mesh.alias for mesh in self.meshes}
        alias, number = wanted[:36] or "mesh", 2
        while alias in taken:
            alias, number = f"{wanted[:36]}-{number}", number + 1
        return alias

    def save(self, config: Config) -> None:
        """Write the file anew, whole or not at all; raises `LocalError` (`disk`), and then nothing changed."""
        if self._lock is None:
            raise LocalError("config_locked", "the keystore is closed")
        write_private(self.directory / CONFIG_FILE, write_config(config))
        self.config = config


def read_private(path: Path) -> bytes:
    """Read a file that must be ours alone.

    Raises:
        LocalError: `config_mode` for a link, another owner or a wider mode; `config_damaged` when unreadable.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        if path.is_symlink():
            raise LocalError("config_mode", f"{path} is a symbolic link")
        descriptor = os.open(path, flags)
    except OSError as error:
        raise LocalError("config_damaged", f"{path.name}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        check_private(path, os.fstat(descriptor))
        return file.read()


def check_private(path: Path, status: os.stat_result) -> None:
    """Refuse (`config_mode`) what is not a plain file or directory of ours, closed to everybody else."""
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise LocalError("config_mode", f"{path} is not a plain file or directory")
    if not _POSIX:
        return
    wanted = "700" if stat.S_ISDIR(status.st_mode) else "600"
    if status.st_uid != os.geteuid():
        raise LocalError("config_mode", f"{path} belongs to another user")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise LocalError("config_mode", f"chmod {wanted} {path}")


def write_private(path: Path, content: bytes) -> None:
    """Replace a file atomically by one that only we can read: temporary file, fsync, rename, fsync of the directory."""
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY_PREFIX, dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        temporary = None
        _sync_directory(path.parent)
    except OSError as error:
        raise LocalError("disk", f"{path.name}: {error.strerror}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def _sync_directory(directory: Path) -> None:
    if not _POSIX:
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise LocalError("disk", f"{directory}: {error.strerror}") from error
    if stat.S_ISLNK(status.st_mode):
        raise LocalError("config_mode", f"{directory} is a symbolic link")
    check_private(directory, status)


def take_lock(path: Path) -> int:
    """Hold an exclusive lock on a file, made for it; it ends with the descriptor or the process, however that ends.

    Raises:
        LocalError: `config_locked` another process holds it; `config_mode` the file cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise LocalError("config_mode", f"{path}: {error.strerror}") from error
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise LocalError("config_locked", str(path.parent)) from error
    return descriptor
