"""What a mailbox that fills up holds of each sender, so that none can take all of it (docs/spec/broker.md §4.4).

A mailbox that has a quarter of its room left is not looked at: nobody can have reached its share. Of others the store
counts once, and what is admitted is added; what leaves the mailbox is seen when it is counted again.
"""

import time
from dataclasses import dataclass
from typing import Final

from claudemesh.broker.policy import SHARE, Limits, Senders
from claudemesh.broker.store.base import Store, Usage
from claudemesh.types import MeshId, PeerId

MAX_AGE_S: Final = 30.0
"""Who was refused comes again after a minute."""
MAX_COUNTED: Final = 1_024


@dataclass(frozen=True, slots=True)
class _Counted:
    senders: Senders
    at: float


class Sharing:
    """Knows the senders of the mailboxes that fill up."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._rows = limits.mailbox_rows * SHARE // (SHARE + 1)
        self._bytes = limits.mailbox_bytes // 2  # so much less than the share as may wait for one commit
        self._counted: dict[tuple[MeshId, PeerId], _Counted] = {}

    async def senders(self, mesh: MeshId, peer: PeerId, used: Usage, coming: int) -> Senders | None:
        """Whose the envelopes of a mailbox are; None while nobody can have its share.

        Args:
            used: What it holds.
            coming: How many envelopes may be stored in it by the commit that asks.
        """
        if used.rows + coming <= self._rows and used.size <= self._bytes:
            return None
        found = self._counted.get((mesh, peer))
        if found is None or time.monotonic() - found.at > MAX_AGE_S:
            found = _Counted(Senders(await self._store.mailbox_senders(mesh, peer)), time.monotonic())
            if len(self._counted) >= MAX_COUNTED:
                self._counted.clear()
            self._counted[mesh, peer] = found
        return found.senders
