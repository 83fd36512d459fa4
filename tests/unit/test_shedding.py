"""Shedding: what is admitted is stored in time, a short queue always is, and the refused come again one by one."""

from itertools import pairwise

from claudemesh.broker.shedding import (
    FALL_MOST,
    FIRST_ROWS_PER_S,
    FREE_ROWS,
    HEADROOM,
    REFUSALS_PER_S,
    RETRY_MAX_MS,
    RETRY_MS,
    RISE,
    Shedding,
)

TARGET_MS = 200
LONGEST_S = HEADROOM * TARGET_MS / 1_000
ANY = 1_000_000
"""More than may ever wait."""


def store(shedding: Shedding, rows_per_s: int, commits: int) -> None:
    """Commits of a broker whose queue is always full, with a store of that speed."""
    for _ in range(commits):
        shedding.admits(ANY)
        shedding.committed(shedding.room / rows_per_s)


def test_as_much_may_wait_as_the_store_commits_in_time() -> None:
    """Whatever the store's speed, and after it has changed: within a twentieth of a second's worth, and never above."""
    shedding = Shedding(TARGET_MS)

    for rows_per_s in (5_000, 50_000, 10_000):
        store(shedding, rows_per_s, 60)
        assert LONGEST_S / RISE * 0.99 <= shedding.room / rows_per_s <= LONGEST_S * RISE


def test_a_broker_that_has_stored_nothing_yet_takes_a_burst() -> None:
    """Without a measurement a guess holds."""
    shedding = Shedding(TARGET_MS)

    assert shedding.admits(int(0.99 * LONGEST_S * FIRST_ROWS_PER_S))
    assert not shedding.admits(int(1.01 * LONGEST_S * FIRST_ROWS_PER_S))


def test_nothing_changes_as_long_as_nobody_is_refused() -> None:
    """A quiet broker learns nothing about what it could do."""
    shedding = Shedding(TARGET_MS)
    before = shedding.room

    for _ in range(100):
        shedding.committed(LONGEST_S / 100)

    assert shedding.room == before


def test_one_stall_of_the_disk_halves_what_may_wait_and_no_more() -> None:
    """However long it was; and what is little is taken always: a noisy neighbour makes no idle mesh come again."""
    shedding = Shedding(TARGET_MS)
    before = shedding.room

    shedding.committed(1_000 * LONGEST_S)
    after = shedding.room
    for _ in range(100):
        shedding.committed(1_000 * LONGEST_S)

    assert after == int(FALL_MOST * before)
    assert shedding.room == FREE_ROWS
    assert shedding.admits(FREE_ROWS - 1)


def test_a_loop_that_stays_behind_takes_little_at_a_time_until_it_has_caught_up() -> None:
    """Frames then wait in sockets, where nobody counts them. A machine that is busy otherwise still takes a message."""
    shedding = Shedding(TARGET_MS)
    before = shedding.room

    for _ in range(20):
        shedding.ticked(2 * LONGEST_S)
    behind = shedding.room
    for _ in range(50):
        shedding.ticked(0.0)

    assert behind == FREE_ROWS
    assert shedding.room >= 0.99 * before


def test_one_late_tick_refuses_nobody() -> None:
    """A process that was stopped for a minute goes on nearly as if nothing had been."""
    shedding = Shedding(TARGET_MS)
    before = shedding.room

    shedding.ticked(60.0)

    assert shedding.room >= 0.39 * before


def test_the_refused_come_again_at_different_times_and_later_the_more_they_are() -> None:
    """Together they would only meet again; and the wait has bounds."""
    shedding = Shedding(TARGET_MS)
    few = sorted(shedding.retry_after_ms() for _ in range(100))

    for _ in range(REFUSALS_PER_S):
        shedding.admits(ANY)
    many = sorted(shedding.retry_after_ms() for _ in range(100))
    for _ in range(20 * REFUSALS_PER_S):
        shedding.admits(ANY)

    assert RETRY_MS // 2 <= few[0] < few[-1] <= 3 * RETRY_MS // 2
    assert max(later - earlier for earlier, later in pairwise(few)) <= 1
    assert 1.9 * few[50] <= many[50] <= 2.1 * few[50]
    assert shedding.retry_after_ms() == RETRY_MAX_MS


def test_refusals_are_forgotten_within_seconds() -> None:
    """What was refused a while ago keeps nobody away."""
    shedding = Shedding(TARGET_MS)
    for _ in range(20 * REFUSALS_PER_S):
        shedding.admits(ANY)

    for _ in range(500):
        shedding.ticked(0.0)

    assert max(shedding.retry_after_ms() for _ in range(100)) <= 3 * RETRY_MS // 2
