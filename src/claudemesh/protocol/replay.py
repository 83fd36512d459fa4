"""Replay windows: each counter of a session is accepted once (docs/spec/envelope.md §6).

A sender numbers its messages in a stream 1, 2, 3 …; the network may reorder, repeat and lose them.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from claudemesh.errors import EnvelopeRefused
from claudemesh.protocol.limits import REPLAY_WINDOW

BITMAP_BYTES: Final = REPLAY_WINDOW // 8
_MASK: Final = (1 << REPLAY_WINDOW) - 1


class Accepted(NamedTuple):
    """A counter that was new: the window with it, and how many messages before it are missing so far."""

    window: "ReplayWindow"
    gap: int


@dataclass(frozen=True, slots=True)
class ReplayWindow:
    """The counters of one (session, stream) that were accepted. A value: accepting makes a new one."""

    highest: int = 0
    bitmap: int = 0
    """Bit i is set when `highest - i` was accepted, for i below `REPLAY_WINDOW`."""

    def accept(self, counter: int) -> Accepted:
        """Accept `counter` once.

        Args:
            counter: From 1; signed by the sender, so at most 2^53 - 1.

        Returns:
            The new window, to be stored with the message, and the gap: 2 when `counter` skips two.

        Raises:
            EnvelopeRefused: `replay`; it was accepted before, or is too old to tell.
        """
        ahead = counter - self.highest
        if ahead > 0:
            # A jump beyond the window empties it; shifting by a counter of 2^53 would exhaust memory.
            shifted = (self.bitmap << ahead) & _MASK if ahead < REPLAY_WINDOW else 0
            return Accepted(ReplayWindow(counter, shifted | 1), ahead - 1)
        if counter < 1 or -ahead >= REPLAY_WINDOW or self.bitmap >> -ahead & 1:
            raise EnvelopeRefused("replay", f"counter {counter}")
        return Accepted(ReplayWindow(self.highest, self.bitmap | 1 << -ahead), 0)

    def to_row(self) -> tuple[int, bytes]:
        """The window as stored: `highest` and `BITMAP_BYTES` bytes, big-endian."""
        return self.highest, self.bitmap.to_bytes(BITMAP_BYTES, "big")

    @classmethod
    def from_row(cls, highest: int, bitmap: bytes) -> Self:
        """Rebuild a stored window."""
        return cls(highest, int.from_bytes(bitmap, "big"))
