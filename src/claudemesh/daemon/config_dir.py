"""Where one user's files and sockets are (docs/spec/ipc.md §1).

Every command imports this, so that what few need is imported where they need it.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any, Final

from claudemesh.errors import LocalError

ENVIRONMENT: Final = "CLAUDEMESH_CONFIG_DIR"
MAX_SOCKET_PATH_BYTES: Final = 100
"""A Unix socket address holds 104 bytes on macOS and 108 on Linux."""
PRIVATE_DIRECTORY: Final = 0o700
PRIVATE_FILE: Final = 0o600


class ConfigDir:
    """One configuration directory: the place of everything that a user's daemon owns."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of_environment(cls) -> "ConfigDir":
        """`$CLAUDEMESH_CONFIG_DIR`, else `~/.claudemesh`."""
        named = os.environ.get(ENVIRONMENT)
        return cls(Path(named).expanduser().absolute() if named else Path.home() / ".claudemesh")

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def start_lock(self) -> Path:
        return self.path / "daemon.start.lock"

    @property
    def log(self) -> Path:
        return self.path / "daemon.log"

    @property
    def crash_output(self) -> Path:
        """What a daemon wrote to its standard error: empty unless the interpreter itself failed."""
        return self.path / "daemon.stderr"

    @property
    def record(self) -> Path:
        """`{"pid", "version", "socket", "started_at"}` of the running daemon."""
        return self.path / "daemon.json"

    @property
    def local_broker(self) -> Path:
        """`{"url"}` of the embedded broker; exists once `claudemesh up` was used."""
        return self.path / "local-broker.json"

    @property
    def local_broker_database(self) -> Path:
        return self.path / "local-broker.db"

    @property
    def local_broker_log(self) -> Path:
        return self.path / "local-broker.log"

    def socket(self) -> Path:
        """The daemon's socket. A directory too deep for a socket address uses a private one that is not."""
        direct = self.path / "daemon.sock"
        if _fits(direct):
            return direct
        recorded = read_json(self.record).get("socket")
        return Path(recorded) if isinstance(recorded, str) else self._short("daemon")

    def broker_socket(self) -> Path:
        """The embedded broker's socket, if it is to be made anew; afterwards `local_broker` names it."""
        direct = self.path / "broker.sock"
        return direct if _fits(direct) else self._short("broker")

    def ensure(self) -> None:
        """Make the directory, or refuse one that others can read or change.

        Raises:
            LocalError: `config_mode`; nothing was written.
        """
        self.path.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        problem = mode_problem(self.path)
        if problem:
            raise LocalError("config_mode", problem)

    def _short(self, name: str) -> Path:
        import hashlib
        import tempfile

        owner = os.getuid() if hasattr(os, "getuid") else 0
        directory = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        bases = [os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"]
        paths = [Path(base) / f"claudemesh-{owner}" / f"{directory}.{name}" for base in bases if base]
        return next(filter(_fits, paths), paths[-1])


def clear_socket_place(socket_path: Path) -> None:
    """Make the directory of a socket, which must be ours alone, and remove the socket of a dead daemon.

    The caller holds the configuration directory's lock.

    Raises:
        LocalError: `config_mode`; somebody else made it first, or it is open to others.
    """
    socket_path.parent.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    problem = mode_problem(socket_path.parent)
    if problem:
        raise LocalError("config_mode", problem)
    socket_path.unlink(missing_ok=True)


def mode_problem(path: Path) -> str:
    """What is wrong with the owner or mode of a file or directory that must be private; empty when nothing is."""
    if not hasattr(os, "getuid"):
        return ""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return f"{path} is a symbolic link"
    if found.st_uid != os.getuid():
        return f"{path} belongs to another user"
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        right = PRIVATE_DIRECTORY if stat.S_ISDIR(found.st_mode) else PRIVATE_FILE
        return f"{path} has mode {mode:04o}: chmod {right:o} {path}"
    return ""


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON object; empty when the file is missing or is not one."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_private(path: Path, content: bytes) -> None:
    """Replace a file as a whole, readable by its owner only, durable when this returns."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES
