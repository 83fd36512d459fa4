"""How much the rosters of this broker come to in all, which is kept for good (docs/spec/limits.md §2)."""

from collections.abc import Sequence
from typing import Final

from claudemesh.broker.policy import Limits
from claudemesh.broker.store.base import MeshRow
from claudemesh.errors import Refused

_UNDO: Final = ("revoke", "uninvite")
"""There is room for these in any case; no roster has more of them than of what they undo."""
_RESCUE: Final = ("recover", "broker")
"""For these there is twice the room: whoever has the key may say them again and again."""


class Holdings:
    """Counted in the store now and then, and what this node appends is added: two nodes may take a little more."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.meshes = 0
        self.entries = 0

    def counted(self, rows: Sequence[MeshRow]) -> None:
        """What the store holds."""
        self.meshes, self.entries = len(rows), sum(row.length for row in rows)

    def added(self, entries: int, *, is_new: bool) -> None:
        """Entries were appended, to a mesh that there was not before if it `is_new`."""
        self.meshes += is_new
        self.entries += entries

    def require_room(self, op: str, seq: int) -> None:
        """Refuse an entry at `seq` of its roster if there is no room for it in all: a genesis, and long rosters.

        Raises:
            Refused: `limit`.
        """
        limits = self._limits
        if op in _UNDO:
            return
        if seq == 0 and self.meshes >= limits.meshes:
            raise Refused("limit", "meshes")
        entries = limits.entries * 2 if op in _RESCUE else limits.entries
        if self.entries >= entries and (seq == 0 or seq >= limits.reserved_entries):
            raise Refused("limit", "entries")

    def used(self) -> float:
        """The larger one of the two parts that are used."""
        return max(self.meshes / self._limits.meshes, self.entries / self._limits.entries)
