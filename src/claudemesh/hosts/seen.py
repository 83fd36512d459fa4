"""What hooks of a host have told of its sessions, and when one last ran: small files in our configuration directory."""

import hashlib
import json
from pathlib import Path

from claudemesh.daemon.config_dir import PRIVATE_DIRECTORY, ConfigDir, read_json, write_private


def remember(config: ConfigDir, host: str, session: str, facts: dict[str, str]) -> None:
    """Keep what is needed to reach a session from outside."""
    path = _path(config, host, session)
    for directory in (path.parent.parent, path.parent):
        directory.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
    write_private(path, json.dumps(facts).encode())


def remembered(config: ConfigDir, host: str, session: str) -> dict[str, str]:
    """What was kept of a session; empty when nothing was."""
    return {name: value for name, value in read_json(_path(config, host, session)).items() if isinstance(value, str)}


def forget(config: ConfigDir, host: str, session: str) -> None:
    """The session has ended."""
    _path(config, host, session).unlink(missing_ok=True)


def note_hook(config: ConfigDir, host: str) -> None:
    """A hook of this host has run."""
    path = _mark(config, host)
    path.parent.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
    path.touch()


def last_hook(config: ConfigDir, host: str) -> int:
    """When a hook of this host last ran (Unix milliseconds); 0 for never."""
    try:
        return int(_mark(config, host).stat().st_mtime * 1_000)
    except OSError:
        return 0


def _mark(config: ConfigDir, host: str) -> Path:
    return config.path / "hosts" / f"{host}.ran"


def _path(config: ConfigDir, host: str, session: str) -> Path:
    name = hashlib.sha256(session.encode()).hexdigest()[:32]
    return config.path / "hosts" / host / f"{name}.json"
