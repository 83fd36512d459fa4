"""A bus inside one process, for nodes that share it (docs/spec/cluster.md §3)."""

import asyncio

from claudemesh.broker.bus.base import AnyHint, Receive, decode_hint, encode_hint


class Hub:
    """What connects the buses of one process; `cut` it to lose every hint."""

    def __init__(self) -> None:
        self.members: set[LocalBus] = set()
        self.is_cut = False


class LocalBus:
    """One node's end of a hub; implements `Bus`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._receive: Receive | None = None

    async def open(self, receive: Receive) -> None:
        """Start to carry hints."""
        self._receive = receive
        self._hub.members.add(self)

    def is_connected(self) -> bool:
        """Whether hints come and go now."""
        return self in self._hub.members and not self._hub.is_cut

    def publish(self, hint: AnyHint) -> None:
        """Tell the other nodes, in the next turn of the loop."""
        if not self.is_connected():
            return
        copy = decode_hint(encode_hint(hint))
        for member in self._hub.members - {self}:
            asyncio.get_running_loop().call_soon(member._take, copy)

    async def close(self) -> None:
        """Stop."""
        self._hub.members.discard(self)

    def _take(self, hint: AnyHint) -> None:
        if self._receive is not None and self.is_connected():
            self._receive(hint)
