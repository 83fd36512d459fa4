"""Shedding: how much is admitted follows how late the broker is, and a short queue is always stored."""

from claudemesh.broker.shedding import FREE_ROWS, LEAST_SHARE, RETRY_MAX_MS, RETRY_MS, Shedding

LATEST_S = 0.2


def test_everything_is_admitted_while_the_broker_keeps_up() -> None:
    """Also behind thousands: a queue alone is not lateness."""
    shedding = Shedding(200)
    shedding.committed(LATEST_S / 8)

    shedding.ticked(LATEST_S / 8)

    assert all(shedding.admits(10_000) for _ in range(1_000))


def test_the_longer_it_is_late_the_less_is_admitted_but_never_nothing() -> None:
    """A quarter of a second of lateness leave about a tenth, a thousand leave the least share, evenly spread."""
    shedding = Shedding(200)

    for _ in range(13):
        shedding.ticked(2 * LATEST_S)
    tenth = sum(shedding.admits(10_000) for _ in range(1_000))
    for _ in range(1_000):
        shedding.ticked(2 * LATEST_S)
    least = sum(shedding.admits(10_000) for _ in range(1_000))

    assert 90 <= tenth <= 120
    assert least in (int(LEAST_SHARE * 1_000), int(LEAST_SHARE * 1_000) - 1)


def test_a_slow_commit_counts_as_lateness() -> None:
    """Whoever arrives now waits for the rest of one commit and for a whole one."""
    shedding = Shedding(200)
    for _ in range(20):
        shedding.committed(LATEST_S)
        shedding.ticked(0.0)

    assert shedding.share < 1.0


def test_one_stall_of_the_disk_refuses_nobody_while_little_waits() -> None:
    """A noisy neighbour on the disk must not make an idle mesh come again."""
    shedding = Shedding(200)
    shedding.committed(30 * LATEST_S)
    shedding.ticked(0.0)

    assert all(shedding.admits(FREE_ROWS - 1) for _ in range(1_000))


def test_it_recovers_and_asks_the_refused_to_wait_for_longer_the_more_is_refused() -> None:
    """Up again tick by tick, to everything; the wait has bounds."""
    shedding = Shedding(200)
    assert shedding.retry_after_ms == RETRY_MS
    for _ in range(100):
        shedding.ticked(2 * LATEST_S)
    assert shedding.retry_after_ms == RETRY_MAX_MS

    for _ in range(200):
        shedding.ticked(0.0)

    assert shedding.share == 1.0
