"""A node's clock is the store's, as nearly as it was ever told."""

import time

import pytest

from claudemesh.broker.heart import Heart, unix_millis
from claudemesh.broker.logs import open_log
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.types import BrokerId, UnixMillis

OFF_MS = 10_000


def told(heart: Heart, off_ms: int, took_s: float) -> None:
    """The store, whose clock is `off_ms` ahead, answered after `took_s`, half-way through."""
    now = time.monotonic()
    heart._set_clock(UnixMillis(unix_millis() + off_ms - int(took_s * 500)), now - took_s, now)


def off_ms(heart: Heart) -> int:
    return heart.clock() - unix_millis()


def heart() -> Heart:
    return Heart(SqliteStore(None), BrokerId("ab" * 32), open_log("error", None), alone=True)


def test_the_clock_of_the_store_is_taken() -> None:
    """From the first answer on, however slow it was: nothing better is known."""
    one = heart()

    told(one, OFF_MS, took_s=2.0)

    assert abs(off_ms(one) - OFF_MS) <= 2


def test_a_slow_answer_does_not_replace_a_quick_one() -> None:
    """It may be wrong by half of the time that it took; the quick one was not."""
    one = heart()
    told(one, OFF_MS, took_s=0.002)

    told(one, OFF_MS + 900, took_s=2.0)

    assert abs(off_ms(one) - OFF_MS) <= 2


def test_a_slow_answer_that_contradicts_what_is_known_is_taken() -> None:
    """A clock was set: no answer that took two seconds is wrong by a minute."""
    one = heart()
    told(one, OFF_MS, took_s=0.002)

    told(one, OFF_MS + 60_000, took_s=2.0)

    assert abs(off_ms(one) - OFF_MS - 60_000) <= 2


@pytest.mark.parametrize("minutes", [10, -10])
def test_setting_the_machines_clock_does_not_move_it(monkeypatch: pytest.MonkeyPatch, minutes: int) -> None:
    """Not even until the next beat: what a node dates and leases meanwhile is by the store's time."""
    one, true = heart(), time.time_ns
    told(one, OFF_MS, took_s=0.002)

    monkeypatch.setattr(time, "time_ns", lambda: true() + minutes * 60_000_000_000)

    assert abs(one.clock() - true() // 1_000_000 - OFF_MS) < 5_000
