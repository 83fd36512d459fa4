"""The nodes of a SQLite store: brokers of one process that share the object, so they are kept in memory."""

import time
from dataclasses import dataclass
from typing import Final

from claudemesh.broker.store.base import LinkId, Node, NodeId
from claudemesh.errors import LocalError
from claudemesh.types import BrokerId

LINKS_PER_NODE: Final = 1 << 32


@dataclass(slots=True)
class _Living:
    node: Node
    broker: BrokerId
    alone: bool
    beat_at: float


class Nodes:
    """Which brokers use the store now. On the event loop."""

    def __init__(self) -> None:
        self._living: dict[NodeId, _Living] = {}
        self._next_link = 0
        self._joined = 0

    def join(self, broker: BrokerId, alone: bool) -> Node:
        """Become a node; see `Store.join`."""
        if any(one.broker != broker for one in self._living.values()):
            raise LocalError("node_key")
        if any(one.alone or alone for one in self._living.values()):
            raise LocalError("config_locked", "another broker uses this database")
        # Larger than any number of an earlier process, whose links may still stand in the tables.
        first = max(time.time_ns() // 1_000_000 << 10, self._next_link)
        self._next_link, self._joined = first + LINKS_PER_NODE, self._joined + 1
        node = Node(NodeId(self._joined), LinkId(first))
        self._living[node.id] = _Living(node, broker, alone, time.monotonic())
        return node

    def beat(self, node: NodeId, lapse_ms: int | None) -> tuple[bool, list[Node]]:
        """Returns whether a node is alive, and those that were buried by it."""
        now, me = time.monotonic(), self._living.get(node)
        if me is None:
            return False, []
        me.beat_at = now
        dead = [] if lapse_ms is None else [one.node for one in self._living.values() if _is_late(one, now, lapse_ms)]
        for one in dead:
            del self._living[one.id]
        return True, dead

    def leave(self, node: NodeId) -> Node | None:
        """Returns the node that has ended, if it was alive."""
        one = self._living.pop(node, None)
        return None if one is None else one.node


def _is_late(one: _Living, now: float, lapse_ms: int) -> bool:
    return (now - one.beat_at) * 1_000 > lapse_ms
