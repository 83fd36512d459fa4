"""A file system of a few MiB, to be filled and emptied. Nothing imitates a full disk: the kernel answers ENOSPC."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

SIZE_MIB: Final = 8
_CHUNKS: Final = (bytes(1 << 20), bytes(4_096))


class SmallDisk:
    """A mounted file system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Take every block that is left."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for chunk in _CHUNKS:
                with pytest.raises(OSError, match="No space left"):  # noqa: PT012
                    while True:
                        ballast.write(chunk)

    def free(self) -> None:
        """Give the blocks back."""
        self._ballast.unlink()


@contextmanager
def small_disk(tmp_path: Path, size_mib: int = SIZE_MIB) -> Iterator[SmallDisk]:
    """A small file system at `tmp_path/disk`: tmpfs, or where that is not allowed a file with ext4."""
    path = tmp_path / "disk"
    path.mkdir(mode=0o700)
    _mount(path, tmp_path / "disk.image", size_mib)
    try:
        path.chmod(0o700)
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def _mount(path: Path, image: Path, size_mib: int) -> None:
    tried = _run("mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=0700", "tmpfs", str(path))
    if tried.returncode == 0:
        return
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    for command in (("mkfs.ext4", "-q", "-m", "0", str(image)), ("mount", "-o", "loop", str(image), str(path))):
        done = _run(*command)
        if done.returncode != 0:
            pytest.fail(
                "this test fills a disk of its own, for which it must be allowed to mount one: run it as root, or in a"
                f" container with CAP_SYS_ADMIN (uid {os.geteuid()}; {tried.stderr.strip()}; {done.stderr.strip()})"
            )


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
