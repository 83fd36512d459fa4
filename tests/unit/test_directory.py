"""Which meshes a broker keeps in memory (docs/spec/broker.md §3)."""

import pytest

from claudemesh.broker import directory as directory_module
from claudemesh.broker.directory import Directory, Mesh
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.protocol.roster import Roster
from claudemesh.types import MeshId


def mesh(name: str, entries: int) -> Mesh:
    """A mesh that nobody uses, with a roster of that length."""
    roster = Roster()
    roster.seq = entries - 1
    return Mesh(MeshId(name), roster, {})


def kept(*meshes: Mesh) -> list[str]:
    """What is in memory after these were asked for, in this order."""
    directory = Directory(SqliteStore(None))
    for one in meshes:
        directory.add(one)
    return [one.id for one in directory.loaded()]


def test_long_rosters_that_nobody_uses_are_forgotten_before_they_are_many() -> None:
    """The longest unused first, until the others have less than the bound together."""
    third = directory_module.MAX_IDLE_ENTRIES // 3

    assert kept(*(mesh(name, third) for name in "abcde")) == ["c", "d", "e"]


def test_the_mesh_that_is_asked_for_now_stays_however_long_it_is() -> None:
    """Whoever asked for it holds it: a second copy beside it would go another way."""
    longest = directory_module.MAX_IDLE_ENTRIES + 1

    assert kept(mesh("a", 1), mesh("b", longest)) == ["b"]


def test_a_mesh_with_work_under_way_is_not_forgotten() -> None:
    busy = mesh("a", directory_module.MAX_IDLE_ENTRIES)
    busy.used = 1

    assert kept(busy, mesh("b", directory_module.MAX_IDLE_ENTRIES), mesh("c", 1)) == ["a", "c"]


def test_short_rosters_are_forgotten_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_module, "MAX_IDLE_MESHES", 2)

    assert kept(*(mesh(name, 1) for name in "abcd")) == ["c", "d"]
