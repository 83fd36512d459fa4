"""The parts of a broker whose work becomes spans: each is the part itself, with a span around what it does.

A broker that traces nothing is built without them, so that it does not even ask whether it should.
"""

import time
from collections.abc import Sequence
from contextvars import ContextVar
from typing import ClassVar, Final, TypeVar

from claudemesh.broker.commits import Batch, Commits, Committed
from claudemesh.broker.directory import Mesh
from claudemesh.broker.heart import Heart
from claudemesh.broker.leasing import Leasing
from claudemesh.broker.links import Link, Outlet
from claudemesh.broker.logs import fingerprint
from claudemesh.broker.members import Members
from claudemesh.broker.ordering import Ordering, Uploader
from claudemesh.broker.routing import Mailbox
from claudemesh.broker.store.base import Leased, Node
from claudemesh.broker.tracing.spans import Tracer
from claudemesh.protocol.link import BrokerLink, HelloReceived
from claudemesh.protocol.roster import Entry
from claudemesh.types import PeerId

T = TypeVar("T")


class _Traced:
    """Has somewhere to send its spans."""

    tracer: ClassVar[Tracer]


class TracedCommits(_Traced, Commits):
    """`commit`: how much was stored together, how long the store took, how often other nodes were faster."""

    async def store(self, batch: Batch) -> Committed:
        """As `Commits.store`; there is one commit at a time, so what is counted meanwhile is its own."""
        with self.tracer.span("commit") as span:
            outdated = self._metrics.commits_outdated
            span.note(letters=len(batch.letters), fan_outs=len(batch.fan_outs))
            span.note(acknowledged=sum(map(len, batch.acks.values())))
            committed = await super().store(batch)
            span.note(stored=len(committed.letters) + len(committed.fan_outs))
            span.note(outdated=self._metrics.commits_outdated - outdated)
        return committed


class TracedMembers(_Traced, Members):
    """`handshake`: from a hello to an open link, and how many entries the peer did not know."""

    async def open(self, received: HelloReceived, proto: BrokerLink, outlet: Outlet) -> tuple[Mesh, Link]:
        """As `Members.open`."""
        with self.tracer.span("handshake") as span:
            mesh, link = await super().open(received, proto, outlet)
            span.note(behind=max(0, mesh.roster.seq - received.hello.roster_seq))
        return mesh, link


class TracedOrdering(_Traced, Ordering):
    """`append`: roster entries, from whom they came, and why they were refused."""

    async def append(self, mesh: Mesh, entries: Sequence[Entry], uploader: Uploader, actor: PeerId | None) -> int:
        """As `Ordering.append`."""
        with self.tracer.span("append") as span:
            span.note(entries=len(entries), uploader=uploader, mesh=fingerprint(mesh.id))
            return await super().append(mesh, entries, uploader, actor)


class TracedLeasing(_Traced, Leasing):
    """`lease`: a mailbox's backlog on its way to a link, until it is empty or the link is full."""

    async def _drain(self, mesh: Mesh, mailbox: Mailbox) -> None:
        with self.tracer.span("lease") as span:
            counts = _drained.set([0, 0, 0])
            try:
                await super()._drain(mesh, mailbox)
            finally:
                leases, rows, size = _drained.get()
                _drained.reset(counts)
                span.note(leases=leases, rows=rows, bytes=size)

    async def _push(self, mesh: Mesh, mailbox: Mailbox, link: Link, rows: Sequence[Leased]) -> int:
        size = await super()._push(mesh, mailbox, link, rows)
        drained = _drained.get()
        drained[0] += 1
        drained[1] += len(rows)
        drained[2] += size
        return size


_drained: ContextVar[list[int]] = ContextVar("drained")
"""Leases, rows and bytes of the backlog that this task drains."""


class TracedHeart(_Traced, Heart):
    """`burial`: other nodes that no longer beat."""

    async def _beat(self, node: Node, lapse_ms: int | None) -> tuple[bool, int]:
        began_ns = time.time_ns()
        is_alive, buried = await super()._beat(node, lapse_ms)
        if buried:
            self.tracer.record("burial", began_ns, nodes=buried)
        return is_alive, buried


_KINDS: Final[dict[type, type[_Traced]]] = {
    Commits: TracedCommits,
    Members: TracedMembers,
    Ordering: TracedOrdering,
    Leasing: TracedLeasing,
    Heart: TracedHeart,
}


def traced(kind: type[T], to: Tracer) -> type[T]:
    """The class in place of `kind` whose spans go `to` a tracer."""
    return type(kind.__name__, (_KINDS[kind],), {"tracer": to})
