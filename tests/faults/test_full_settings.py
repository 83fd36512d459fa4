"""`claudemesh install` where the disk of the host's settings is full: all of it is done, or nothing."""

from pathlib import Path

import pytest

from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.hosts.base import Place, host_of
from tests.faults.small_disk import SmallDisk, small_disk

BLOCK = 4_096


def place_of(disk: SmallDisk, tmp_path: Path) -> Place:
    """Codex's two files are on the small disk; what `uninstall` needs is not."""
    codex = disk.path / ".codex"
    codex.mkdir()
    (codex / "config.toml").write_text('model = "o3"\n')
    (codex / "hooks.json").write_text('{"description": "' + "x" * 4 * BLOCK + '"}')
    return Place("user", disk.path, tmp_path, {"PATH": ""}, ConfigDir(tmp_path / "config"))


def contents(place: Place) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (place.home / ".codex").iterdir()}


@pytest.mark.parametrize("blocks", [0, 2])
def test_an_install_without_room_changes_nothing(tmp_path: Path, blocks: int) -> None:
    """With no room at all, and with room for the first of two files; with enough, it is done."""
    codex = host_of("codex")
    with small_disk(tmp_path) as disk:
        place = place_of(disk, tmp_path)
        before = contents(place)
        room = disk.path / "room"
        room.write_bytes(bytes(blocks * BLOCK))
        disk.fill()
        room.unlink()
        with pytest.raises(OSError, match="No space left"):
            codex.install(place)
        after = contents(place)

        disk.free()
        changes = codex.install(place)

        assert after == before
        assert len(changes) == 2
        assert codex.uninstall(place)
        assert contents(place) == before
