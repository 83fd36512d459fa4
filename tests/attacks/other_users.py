"""Another user of the machine, as the system knows one."""

import os
import pwd
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def another_user() -> Iterator[None]:
    """Whatever this process does meanwhile, it does as somebody who owns nothing here."""
    assert os.geteuid() == 0, "only root can become another user: run this test as root, or in a container"
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that everybody may enter and write to, as the system's one for temporary files."""
    with tempfile.TemporaryDirectory(prefix="claudemesh-open-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@contextmanager
def socket_of_another_user(path: Path) -> Iterator[socket.socket]:
    """A socket on which somebody else listens, in a directory that is that user's."""
    with another_user():
        path.parent.mkdir(mode=0o755)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen()
    with listener:
        yield listener
