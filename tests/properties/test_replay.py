"""The bit window against a set that forgets nothing (docs/spec/envelope.md §6)."""

from hypothesis import given
from hypothesis import strategies as st

from claudemesh.errors import EnvelopeRefused
from claudemesh.protocol.limits import REPLAY_WINDOW
from claudemesh.protocol.replay import ReplayWindow

near = st.integers(1, 60)
around = st.integers(1, 3 * REPLAY_WINDOW)
counters = st.lists(near | around | st.integers(1, 2**53 - 1), max_size=60)


@given(counters, st.booleans())
def test_window_accepts_what_a_set_would(sequence: list[int], stored: bool) -> None:
    """Once each, unless too old to tell; the gap is what lies between the highest two. Storing changes nothing."""
    window, seen = ReplayWindow(), set[int]()

    for counter in sequence:
        highest = max(seen, default=0)
        too_old = counter <= highest - REPLAY_WINDOW
        try:
            window, gap = window.accept(counter)
        except EnvelopeRefused:
            assert counter in seen or too_old
            continue
        assert counter not in seen
        assert not too_old
        assert gap == max(0, counter - highest - 1)
        seen.add(counter)
        if stored:
            window = ReplayWindow.from_row(*window.to_row())
        assert window.highest == max(seen)
