"""Each counter is accepted once, whatever the network does with the order (docs/spec/envelope.md §6)."""

import pytest

from claudemesh.errors import EnvelopeRefused
from claudemesh.protocol.limits import REPLAY_WINDOW
from claudemesh.protocol.replay import BITMAP_BYTES, ReplayWindow


def _window(*counters: int) -> ReplayWindow:
    window = ReplayWindow()
    for counter in counters:
        window = window.accept(counter).window
    return window


def _is_replay(window: ReplayWindow, counter: int) -> bool:
    try:
        window.accept(counter)
    except EnvelopeRefused as refusal:
        return refusal.code == "replay"
    return False


def test_counter_is_accepted_once() -> None:
    window = _window(1, 2, 3)

    assert [_is_replay(window, counter) for counter in (1, 2, 3, 4)] == [True, True, True, False]


def test_gap_counts_the_messages_that_are_missing_so_far() -> None:
    """A broker cannot drop a message unnoticed once a later one arrives (A13)."""
    gaps = []
    window = ReplayWindow()
    for counter in (1, 2, 5, 4, 6, 3, 10):
        window, gap = window.accept(counter)
        gaps.append(gap)

    assert gaps == [0, 0, 2, 0, 0, 0, 3]


def test_first_message_that_is_not_the_first_of_its_stream_shows_a_gap() -> None:
    assert ReplayWindow().accept(4).gap == 3


def test_late_message_is_accepted_once_within_the_window() -> None:
    newest = REPLAY_WINDOW + 10
    window = _window(newest)
    oldest = newest - REPLAY_WINDOW + 1

    assert _is_replay(window, oldest - 1)
    assert not _is_replay(window, oldest)
    assert _is_replay(window.accept(oldest).window, oldest)


@pytest.mark.parametrize("counter", [0, -1, -5000])
def test_counters_start_at_one(counter: int) -> None:
    assert _is_replay(ReplayWindow(), counter)


@pytest.mark.parametrize("jump", [REPLAY_WINDOW - 1, REPLAY_WINDOW, REPLAY_WINDOW + 1, 2**53 - 2])
def test_jump_ahead_keeps_what_is_still_inside_the_window(jump: int) -> None:
    """The largest counter that a header can carry must not cost more than any other."""
    window, gap = _window(1).accept(1 + jump)

    assert gap == jump - 1
    assert _is_replay(window, 1)
    assert _is_replay(window, 1 + jump)
    assert window.bitmap.bit_length() <= REPLAY_WINDOW


def test_accepting_leaves_the_earlier_window_as_it_was() -> None:
    """The window is stored with the message; when that fails, the old one still stands."""
    window = _window(1)

    window.accept(2)

    assert not _is_replay(window, 2)


def test_window_is_stored_in_an_integer_and_128_bytes() -> None:
    window = _window(1, 2, 5, 900, 3)

    highest, bitmap = window.to_row()

    assert (highest, len(bitmap)) == (900, BITMAP_BYTES) == (900, 128)
    assert ReplayWindow.from_row(highest, bitmap) == window
