"""What a node tells the others, gathered so that a commit costs one hint (docs/spec/cluster.md §3)."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from claudemesh.broker.bus.base import AnyHint, Bus, Moved, Said, Scheduled, Superseded, Waiting
from claudemesh.broker.store.base import LinkId
from claudemesh.crypto.statements import Statement
from claudemesh.types import MeshId, PeerId

PEERS_PER_HINT: Final = 2_000


class Hints:
    """Publishes on the bus; without one, there is nobody to tell and nothing is done."""

    def __init__(self, bus: Bus | None) -> None:
        self._bus = bus
        self._waiting: dict[MeshId, set[PeerId]] = {}
        self._others: list[AnyHint] = []
        self._is_due = False

    def waiting(self, mesh: MeshId, peers: Iterable[PeerId]) -> None:
        """Rows that no link of ours holds wait in these mailboxes."""
        if self._bus is not None:
            self._waiting.setdefault(mesh, set()).update(peers)
            self._soon()

    def moved(self, mesh: MeshId) -> None:
        """A mesh is at another version."""
        self._tell(Moved(mesh))

    def scheduled(self) -> None:
        """A row was stored whose time will come."""
        self._tell(Scheduled())

    def said(self, mesh: MeshId, peer: PeerId, statement: Statement) -> None:
        """The broker has said something about a peer."""
        self._tell(Said(mesh, peer, statement))

    def superseded(self, mesh: MeshId, link: LinkId) -> None:
        """A session has opened another link here than `link`."""
        self._tell(Superseded(mesh, link))

    def flush(self) -> None:
        """Publish what was gathered."""
        self._is_due = False
        waiting, self._waiting = self._waiting, {}
        others, self._others = self._others, []
        if self._bus is None:
            return
        for hint in dict.fromkeys(others):
            self._bus.publish(hint)
        for mesh, peers in waiting.items():
            for some in _split(sorted(peers)):
                self._bus.publish(Waiting(mesh, tuple(some)))

    def _tell(self, hint: AnyHint) -> None:
        if self._bus is not None:
            self._others.append(hint)
            self._soon()

    def _soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self.flush)


def _split(peers: Sequence[PeerId]) -> Iterable[Sequence[PeerId]]:
    return (peers[start : start + PEERS_PER_HINT] for start in range(0, len(peers), PEERS_PER_HINT))
