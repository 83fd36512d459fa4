"""What all rosters of a broker may take together."""

import pytest

from claudemesh.broker.holdings import Holdings
from claudemesh.broker.policy import Limits
from claudemesh.broker.store.base import MeshRow
from claudemesh.errors import Refused
from claudemesh.types import MeshId, UnixMillis

LIMITS = Limits(meshes=10, entries=100, reserved_entries=5)


def holding(meshes: int, entries: int) -> Holdings:
    """Those that a store has: all of the entries in the first mesh, but for one in each."""
    holdings = Holdings(LIMITS)
    lengths = [entries - meshes + 1] + [1] * (meshes - 1)
    holdings.counted([MeshRow(MeshId(str(n)), True, length, UnixMillis(0)) for n, length in enumerate(lengths)])
    return holdings


@pytest.mark.parametrize(
    ("meshes", "entries", "op", "seq", "refused"),
    [
        (9, 99, "genesis", 0, ""),
        (10, 99, "genesis", 0, "meshes"),
        (10, 99, "admit", 50, ""),
        (9, 100, "genesis", 0, "entries"),
        (9, 100, "admit", 4, ""),
        (9, 100, "admit", 5, "entries"),
        (9, 199, "recover", 50, ""),
        (9, 199, "broker", 50, ""),
        (9, 200, "recover", 50, "entries"),
        (9, 200, "broker", 50, "entries"),
        (10, 999, "revoke", 50, ""),
        (10, 999, "uninvite", 50, ""),
    ],
)
def test_what_is_full_takes_what_is_needed_and_no_more(
    meshes: int, entries: int, op: str, seq: int, refused: str
) -> None:
    """No stranger's mesh; what removes, in any case; and the beginning of every roster."""
    holdings = holding(meshes, entries)

    try:
        holdings.require_room(op, seq)
        said = ""
    except Refused as refusal:
        said = refusal.detail

    assert said == refused


def test_what_is_appended_counts_at_once() -> None:
    """The store is asked once a minute."""
    holdings = holding(9, 90)

    holdings.added(1, is_new=True)
    holdings.added(4, is_new=False)

    assert (holdings.meshes, holdings.entries) == (10, 95)
    assert holdings.used() == 1.0
