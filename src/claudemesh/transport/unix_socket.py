"""A Unix socket to listen on (docs/spec/broker.md §1)."""

import os
import socket
import stat
from pathlib import Path

from claudemesh.errors import UsageError


def bound_socket(path: Path) -> socket.socket:
    """A socket at `path`, mode 0600; one that nobody serves any more is replaced.

    Raises:
        UsageError: Somebody serves it, or the path cannot be used.
    """
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o177)
    try:
        listening.bind(str(path))
    except OSError as error:
        listening.close()
        raise UsageError("usage", f"cannot listen on {path}: {error.strerror or error}") from error
    finally:
        os.umask(previous)
    return listening


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UsageError("usage", f"{path} exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise UsageError("usage", f"another broker listens on {path}")
