"""What a mailbox that fills up holds of each sender, so that none can take all of it (docs/spec/broker.md §4.4).

A mailbox that has a quarter of its room left is not looked at: nobody can have reached its share. Of others the store
counts, and no commit waits for it: until then, what was admitted since is what is known. What leaves the mailbox is
seen when it is counted again.
"""

import time
from dataclasses import dataclass
from typing import Final

from claudemesh.broker.leasing import Spawn
from claudemesh.broker.metrics import Metrics
from claudemesh.broker.policy import SHARE, Limits, Senders
from claudemesh.broker.store.base import Store, Usage
from claudemesh.errors import LocalError
from claudemesh.types import MeshId, PeerId

MAX_AGE_S: Final = 30.0
"""Who was refused comes again after a minute."""
MAX_COUNTED: Final = 1_024

_Address = tuple[MeshId, PeerId]


@dataclass(slots=True)
class _Counted:
    senders: Senders
    at: float
    """When the store was asked, by `time.monotonic`."""


class Sharing:
    """Knows the senders of the mailboxes that fill up."""

    def __init__(self, store: Store, limits: Limits, metrics: Metrics, spawn: Spawn) -> None:
        self._store = store
        self._metrics = metrics
        self._spawn = spawn
        self._rows = limits.mailbox_rows * SHARE // (SHARE + 1)
        self._bytes = limits.mailbox_bytes // 2  # so much less than the share as may wait for one commit
        self._counted: dict[_Address, _Counted] = {}

    def senders(self, mesh: MeshId, peer: PeerId, used: Usage, coming: int) -> Senders | None:
        """Whose the envelopes of a mailbox are; None while nobody can have its share.

        Args:
            used: What it holds.
            coming: How many envelopes may be stored in it by the commit that asks.
        """
        if used.rows + coming <= self._rows and used.size <= self._bytes:
            return None
        now, address = time.monotonic(), (mesh, peer)
        found = self._counted.get(address)
        if found is None:
            if len(self._counted) >= MAX_COUNTED:
                self._counted.clear()
            found = self._counted[address] = _Counted(Senders({}), now - MAX_AGE_S)
        if now - found.at >= MAX_AGE_S:
            found.at = now
            self._spawn(self._count(address, found))
        return found.senders

    async def _count(self, address: _Address, counted: _Counted) -> None:
        try:
            counted.senders = Senders(await self._store.mailbox_senders(*address))
        except LocalError:
            self._metrics.store_failures += 1  # it is asked again
