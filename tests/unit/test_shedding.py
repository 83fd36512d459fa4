"""Shedding: what is admitted is stored in time, a short queue always is, and the refused come again one by one."""

from itertools import pairwise

from claudemesh.broker.shedding import (
    FIRST_ROWS_PER_S,
    FREE_ROWS,
    HEADROOM,
    REFUSALS_PER_S,
    RETRY_MAX_MS,
    RETRY_MS,
    Shedding,
)

TARGET_S = 0.2
ROWS_PER_S = 5_000


def at_rate(rows_per_s: int) -> Shedding:
    """One whose commits have stored so many rows a second for a while."""
    shedding = Shedding(int(TARGET_S * 1_000))
    for _ in range(50):
        shedding.committed(rows_per_s // 10, 0.1)
    return shedding


def test_what_waits_is_admitted_as_long_as_commits_will_have_stored_it_in_time() -> None:
    """The queue is as long as the commits of the last moments are fast, and no longer."""
    shedding = at_rate(ROWS_PER_S)

    longest = HEADROOM * TARGET_S * ROWS_PER_S
    assert shedding.admits(int(0.99 * longest))
    assert not shedding.admits(int(1.01 * longest))


def test_a_broker_that_has_stored_nothing_yet_takes_a_burst() -> None:
    """Without a measurement a guess holds."""
    shedding = Shedding(int(TARGET_S * 1_000))

    assert shedding.admits(int(0.99 * HEADROOM * TARGET_S * FIRST_ROWS_PER_S))


def test_the_first_measured_commits_replace_the_guess() -> None:
    """A slow disk shows within a few commits."""
    shedding = Shedding(int(TARGET_S * 1_000))

    for _ in range(3):
        shedding.committed(200, 0.2)

    assert not shedding.admits(int(0.5 * HEADROOM * TARGET_S * FIRST_ROWS_PER_S))


def test_one_stall_of_the_disk_refuses_nobody_while_little_waits() -> None:
    """A noisy neighbour on the disk must not make an idle mesh come again."""
    shedding = at_rate(ROWS_PER_S)

    shedding.committed(1, 30 * TARGET_S)

    assert shedding.admits(FREE_ROWS - 1)


def test_commits_of_acknowledgements_alone_measure_nothing() -> None:
    """They store no rows, and are no slow commits of messages."""
    shedding = at_rate(ROWS_PER_S)
    before = shedding.room

    shedding.committed(0, 1.0)

    assert shedding.room == before


def test_a_loop_that_stays_behind_takes_little_at_a_time_until_it_has_caught_up() -> None:
    """Frames then wait in sockets, where nobody counts them. A machine that is busy otherwise still takes a message."""
    shedding = at_rate(ROWS_PER_S)

    for _ in range(20):
        shedding.ticked(TARGET_S)
    behind = shedding.room
    for _ in range(50):
        shedding.ticked(0.0)

    assert behind == FREE_ROWS
    assert shedding.admits(int(0.9 * HEADROOM * TARGET_S * ROWS_PER_S))


def test_one_late_tick_refuses_nobody() -> None:
    """A process that was stopped for a minute goes on as if nothing had been."""
    shedding = at_rate(ROWS_PER_S)

    shedding.ticked(60.0)

    assert shedding.admits(int(0.3 * HEADROOM * TARGET_S * ROWS_PER_S))


def test_the_refused_come_again_at_different_times_and_later_the_more_they_are() -> None:
    """Together they would only meet again; and the wait has bounds."""
    shedding = Shedding(int(TARGET_S * 1_000))
    few = sorted(shedding.retry_after_ms() for _ in range(100))

    for _ in range(REFUSALS_PER_S):
        shedding.admits(1_000_000)
    many = sorted(shedding.retry_after_ms() for _ in range(100))
    for _ in range(100 * REFUSALS_PER_S):
        shedding.admits(1_000_000)

    assert RETRY_MS // 2 <= few[0] < few[-1] <= 3 * RETRY_MS // 2
    assert max(later - earlier for earlier, later in pairwise(few)) <= RETRY_MS // 20
    assert 1.9 * few[50] < many[50] < 2.1 * few[50]
    assert shedding.retry_after_ms() == RETRY_MAX_MS


def test_refusals_are_forgotten_within_seconds() -> None:
    """What was refused a while ago keeps nobody away."""
    shedding = Shedding(int(TARGET_S * 1_000))
    for _ in range(100 * REFUSALS_PER_S):
        shedding.admits(1_000_000)

    for _ in range(1_000):
        shedding.ticked(0.0)

    assert max(shedding.retry_after_ms() for _ in range(100)) <= 3 * RETRY_MS // 2
