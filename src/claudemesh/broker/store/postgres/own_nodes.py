"""The nodes that this process has joined the database as: one, or several brokers of one process."""

import asyncio
from contextlib import suppress
from functools import partial

from claudemesh.broker.store.base import Node, NodeId
from claudemesh.broker.store.postgres import nodes
from claudemesh.broker.store.postgres.connection import Connection
from claudemesh.broker.store.postgres.lane import Lane
from claudemesh.broker.store.url import DatabaseUrl
from claudemesh.errors import LocalError
from claudemesh.types import BrokerId


class OwnNodes:
    """Which they are, so that a connection that takes the place of a lost one holds their locks."""

    def __init__(self, url: DatabaseUrl) -> None:
        self._url = url
        self._joined: set[NodeId] = set()
        self._is_alone = False

    async def reconnect(self) -> Connection:
        """Open a connection that holds their locks."""
        return await nodes.reconnect(self._url, self._joined)

    async def join(self, lane: Lane, broker: BrokerId, *, alone: bool) -> Node:
        """Become one more; patient with a node in the way that may be gone, but for the last attempt."""
        node = None
        for attempt in range(nodes.JOIN_ATTEMPTS):
            patient = attempt < nodes.JOIN_ATTEMPTS - 1
            node = await lane.do(partial(nodes.join, broker=broker, alone=alone, patient=patient))
            if node is not None:
                break
            await asyncio.sleep(nodes.JOIN_PAUSE_S)
        if node is None:
            raise AssertionError("the last attempt to join neither joined nor failed")
        self._joined.add(node.id)
        self._is_alone = alone
        return node

    async def leave(self, lane: Lane, node: NodeId) -> None:
        """Be one less."""
        self._joined.discard(node)
        await lane.do(partial(nodes.leave, node=node))

    async def let_go(self, lane: Lane) -> None:
        """Alone, let the place go, for whoever comes next."""
        if self._is_alone:
            with suppress(LocalError):
                await lane.do(partial(nodes.let_go, joined=list(self._joined)))
