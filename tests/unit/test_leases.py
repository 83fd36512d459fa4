"""Leases in memory: one holder for each row, and none for a link that has ended."""

from claudemesh.broker.store.base import LinkId
from claudemesh.broker.store.sqlite.leases import Leases
from claudemesh.types import MeshId, PeerId

BOB = (MeshId("ab" * 32), PeerId("b2" * 32))
CAROL = (MeshId("ab" * 32), PeerId("c3" * 32))
FIRST, SECOND = LinkId(1), LinkId(2)


def test_a_row_has_one_holder() -> None:
    """Whoever comes second gets what is left."""
    leases = Leases()
    leases.register(BOB, FIRST)
    leases.register(BOB, SECOND)

    assert leases.take(BOB, FIRST, [1, 2]) == {1, 2}
    assert leases.take(BOB, SECOND, [2, 3]) == {3}
    assert sorted(leases.of(BOB)) == [1, 2, 3]


def test_a_released_link_holds_nothing_and_gets_nothing() -> None:
    """Its rows are free, those of the mailbox's other link are not."""
    leases = Leases()
    leases.register(BOB, FIRST)
    leases.register(BOB, SECOND)
    leases.take(BOB, FIRST, [1, 2])
    leases.take(BOB, SECOND, [3])

    leases.release(FIRST)

    assert leases.of(BOB) == [3]
    assert leases.take(BOB, FIRST, [4]) is None
    assert leases.take(BOB, SECOND, [1]) == {1}


def test_a_link_belongs_to_one_mailbox() -> None:
    """It cannot take rows of another, nor of one that it was never registered for."""
    leases = Leases()
    leases.register(BOB, FIRST)

    assert leases.take(CAROL, FIRST, [1]) is None
    assert leases.take(BOB, SECOND, [1]) is None
    assert leases.of(CAROL) == []


def test_deleted_rows_are_forgotten() -> None:
    """Also where no link is open."""
    leases = Leases()
    leases.register(BOB, FIRST)
    leases.take(BOB, FIRST, [1, 2])

    leases.drop(BOB, [1, 7])
    leases.drop(CAROL, [1])

    assert leases.of(BOB) == [2]
    leases.release(FIRST)
    leases.release(FIRST)
    assert leases.of(BOB) == []
