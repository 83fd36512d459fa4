"""What is quiet here by a person's word: a mesh that is paused, and "do not disturb" (docs/spec/holding.md §4)."""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from claudemesh.types import Priority, UnixMillis

Withheld = Literal["", "paused", "dnd"]

_NEVER: Final = UnixMillis(0)


class Quiet(NamedTuple):
    """Since when; 0 where it is not."""

    paused_since: UnixMillis = _NEVER
    dnd_since: UnixMillis = _NEVER

    @classmethod
    def of(cls, kinds: Mapping[str, UnixMillis]) -> "Quiet":
        """From the kinds that are quiet."""
        return cls(kinds.get("paused", _NEVER), kinds.get("dnd", _NEVER))

    def withheld(self, priority: Priority) -> Withheld:
        """Why a message is not put before an agent now; empty when it may be.

        Args:
            priority: As it is taken: `now` only of a sender that may interrupt.
        """
        if self.paused_since:
            return "paused"
        return "dnd" if self.dnd_since and priority != "now" else ""
