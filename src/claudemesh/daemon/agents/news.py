"""What waits for a session, and what of it is worth calling the session for."""

from typing import NamedTuple


class Waiting(NamedTuple):
    """How many unread messages wait for a session, by what they may do."""

    now: int
    next: int
    low: int
    """Acknowledgements, too: neither wakes anybody."""
    doubtful: int
    """Offered, with no sign whether they were shown."""

    @property
    def total(self) -> int:
        return self.now + self.next + self.low + self.doubtful


class News(NamedTuple):
    """What waits for a session, as it stands now."""

    waiting: Waiting
    interrupts: bool
    """Whether something is worth a busy session's next tool."""
    wakes: bool
    """Whether something is worth waking this session for, rather than another one; a busy one is not woken."""
