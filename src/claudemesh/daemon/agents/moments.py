"""What each moment of an agent's session may show, as a table (docs/spec/surfacing.md §2)."""

from typing import Final, Literal, NamedTuple

from claudemesh.protocol.messages import Status

Moment = Literal["session_start", "prompt", "tool", "turn_end", "idle_wake", "inbox"]
"""When something can be put before a model: `inbox` is when it asks."""
Reach = Literal["wakeable", "tool", "turn", "asked"]
"""How a message reaches a session that does not ask."""

NOW, NEXT, LOW = 0, 1, 2


class Showing(NamedTuple):
    """The least urgent priority that is shown, and whether acknowledgements are."""

    rank: int
    acks: bool


_SHOWN: Final[dict[Moment, Showing]] = {
    "session_start": Showing(NEXT, acks=True),
    "prompt": Showing(NEXT, acks=True),
    "tool": Showing(NOW, acks=False),
    "turn_end": Showing(NEXT, acks=False),
    "idle_wake": Showing(NEXT, acks=False),
    "inbox": Showing(LOW, acks=True),
}
"""A turn that ends goes on when it is shown something, as an idle session wakes: an acknowledgement is not worth it."""


def shown_at(moment: Moment, *, is_dnd: bool) -> Showing:
    """What a moment may show; who does not want to be disturbed is shown `now` alone, unless it asks."""
    showing = _SHOWN[moment]
    return Showing(NOW, acks=False) if is_dnd and moment != "inbox" else showing


def status_after(moment: Moment, status: Status, *, shown: bool) -> Status:
    """What a session does after a moment, as presence tells it."""
    match moment:
        case "session_start":
            return "idle"
        case "prompt" | "tool":
            return "busy"
        case "turn_end" | "idle_wake":
            return "busy" if shown else "idle"
        case "inbox":
            return status
