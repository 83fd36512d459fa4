"""What each moment of an agent's session shows: the table of docs/spec/surfacing.md §2, row by row."""

from pathlib import Path
from typing import get_args

import pytest

from claudemesh.daemon.agents.moments import Moment, shown_at, status_after
from claudemesh.protocol.messages import Status

SPEC = Path(__file__).resolve().parents[2] / "docs" / "spec" / "surfacing.md"
MOMENTS: tuple[Moment, ...] = get_args(Moment)
STATUSES: tuple[Status, ...] = get_args(Status)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_moment_shows_what_the_specification_says(moment: Moment) -> None:
    """Every priority, and acknowledgements."""
    table = SPEC.read_text().split("\n## ")[2]
    (row,) = [line for line in table.split("\n") if line.startswith(f"| `{moment}`")]
    stated = [cell.strip() == "yes" for cell in row.split("|")[2:6]]

    showing = shown_at(moment, is_dnd=False)

    assert [showing.rank >= 0, showing.rank >= 1, showing.rank >= 2, showing.acks] == stated


@pytest.mark.parametrize("moment", [one for one in MOMENTS if one != "inbox"])
def test_who_is_not_to_be_disturbed_is_shown_now_alone(moment: Moment) -> None:
    """At every moment that it did not choose."""
    assert shown_at(moment, is_dnd=True) == (0, False)


def test_who_asks_is_shown_everything() -> None:
    """Also while it is not to be disturbed: it disturbs itself."""
    assert shown_at("inbox", is_dnd=True) == (2, True)


@pytest.mark.parametrize("status", STATUSES)
def test_presence_follows_the_moments_of_a_turn(status: Status) -> None:
    """A turn begins with a prompt or with what woke the session, and ends when there is nothing more to show."""
    after = {
        (moment, shown): status_after(moment, status, shown=shown) for moment in MOMENTS for shown in (True, False)
    }

    assert after == {
        ("session_start", True): "idle",
        ("session_start", False): "idle",
        ("prompt", True): "busy",
        ("prompt", False): "busy",
        ("tool", True): "busy",
        ("tool", False): "busy",
        ("turn_end", True): "busy",
        ("turn_end", False): "idle",
        ("idle_wake", True): "busy",
        ("idle_wake", False): "idle",
        ("inbox", True): status,
        ("inbox", False): status,
    }
