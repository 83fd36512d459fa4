"""A broker that asks for patience gets it, and is not left waiting for longer than that."""

from claudemesh.peer.pacing import Pace
from claudemesh.types import UnixMillis

START = UnixMillis(1_000_000)


def test_without_a_complaint_there_is_no_pause() -> None:
    """Everything may go at once, as often as there is something."""
    pace = Pace()

    for _ in range(3):
        assert pace.allowance(START, 200) == 200
        pace.spend(200, START)
    assert pace.next_at() is None


def test_after_a_complaint_nothing_goes_before_its_time() -> None:
    """And then not all at once."""
    pace = Pace()
    pace.slow_down(START, 500)

    assert pace.allowance(UnixMillis(START + 499), 200) == 0
    assert 1 <= pace.allowance(UnixMillis(START + 500), 200) < 20


def test_submissions_keep_the_interval() -> None:
    """Over a second about as many go as the interval allows, and never as many as wait."""
    pace, now, sent = Pace(), START, 0
    pace.slow_down(now, 100)
    for _ in range(1_000):
        now = UnixMillis(now + 1)
        allowed = pace.allowance(now, 256)
        pace.spend(allowed, now)
        sent += allowed

    assert 60 <= sent <= 120


def test_complaints_slow_down_and_acceptance_speeds_up_again() -> None:
    """To the full speed in the end."""
    pace = Pace()
    for _ in range(5):
        pace.slow_down(START, 1)
    slow = pace.allowance(UnixMillis(START + 100), 256)

    pace.speed_up(2_000)

    assert slow < 5
    assert pace.allowance(UnixMillis(START + 100), 256) == 256
