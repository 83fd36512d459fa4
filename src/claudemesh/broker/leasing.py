"""Fills open links from mailboxes in the store: backlogs, scheduled envelopes, expiry (docs/spec/broker.md §4)."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

from claudemesh.broker.directory import Directory, Mesh
from claudemesh.broker.hints import Hints
from claudemesh.broker.links import Link
from claudemesh.broker.metrics import Metrics
from claudemesh.broker.policy import Limits
from claudemesh.broker.pushing import delivery, push_frames
from claudemesh.broker.routing import Mailbox
from claudemesh.broker.store.base import UNCERTAIN, Leased, Notice, Store, Undelivered
from claudemesh.errors import LocalError
from claudemesh.protocol.messages import Closing
from claudemesh.types import MeshId, PeerId, UnixMillis

FIRST_LEASE_ROWS: Final = 4
LEASE_ROWS: Final = 64
LEASE_BYTES: Final = 256 << 10
"""Leases grow to `LEASE_ROWS` while they hold less than this: an envelope may have two kilobytes or a megabyte."""
EXPIRE_ROWS: Final = 256
EXPIRE_INTERVAL_S: Final = 5.0
RETRY_S: Final = 1.0
_FAR_S: Final = 3_600.0
_SLOW_READER_POLL_S: Final = 0.05

Spawn = Callable[[Coroutine[Any, Any, None]], None]
"""Starts a task that the broker owns and awaits."""


class Leasing:
    """Leases rows to links and writes them; one task per mailbox at most, and only while it has a backlog."""

    def __init__(
        self,
        store: Store,
        directory: Directory,
        limits: Limits,
        metrics: Metrics,
        clock: Callable[[], UnixMillis],
        spawn: Spawn,
        notice: Callable[[str], Notice],
        hints: Hints,
    ) -> None:
        self._store = store
        self._directory = directory
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._spawn = spawn
        self._notice = notice
        self._hints = hints
        self._stalled: set[tuple[Mesh, Mailbox]] = set()
        self._unreleased: set[Link] = set()
        self._due_changed = asyncio.Event()

    def pump(self, mesh: Mesh, mailbox: Mailbox) -> None:
        """Lease what waits in a mailbox, if it has an open link."""
        if mailbox.has_rows() and not mailbox.leasing and mailbox.newest() is not None:
            mailbox.leasing = True
            self._spawn(self._drain(mesh, mailbox))

    def waits(self, mesh: Mesh, mailbox: Mailbox) -> None:
        """The store has a row for this mailbox that no link holds: here or on another node one may take it."""
        mailbox.wait()
        self._hints.waiting(mesh.id, (mailbox.peer,))
        self.pump(mesh, mailbox)

    def look(self, mesh_id: MeshId, peers: Iterable[PeerId], *, elsewhere: bool = False) -> None:
        """Rows may wait in these mailboxes; `elsewhere` says that links of other nodes have sent them."""
        mesh = self._directory.cached(mesh_id)
        if mesh is None:
            return
        for peer in peers:
            mailbox = mesh.mailboxes.get(peer)
            if mailbox is not None:
                if elsewhere:
                    mailbox.wait_elsewhere()
                else:
                    mailbox.wait()
                self.pump(mesh, mailbox)

    def scheduled(self) -> None:
        """An envelope with a `not_before` was stored."""
        self._hints.scheduled()
        self.look_for_due()

    def look_for_due(self) -> None:
        """The next envelope may be due earlier than it seemed."""
        self._due_changed.set()

    def settle(self, link: Link, mailbox: Mailbox) -> None:
        """Close a link of a mesh that has moved, once its mailbox is empty."""
        if link.leaving_at is None or link.closed:
            return
        if (not mailbox.backlog and not len(link.window)) or self._clock() >= link.leaving_at:
            mesh = self._directory.cached(link.mesh)
            url = mesh.roster.broker_url if mesh is not None else None
            link.close(Closing(code="moved", url=url), audit_reason="moved")

    async def link_ended(self, mesh: Mesh, link: Link) -> None:
        """Give the rows of a link that has ended to the next one of its peer."""
        mesh.mailbox(link.peer).detach(link)
        await self._release(mesh, link)

    def returned(self, link: Link) -> None:
        """Rows were leased to a link while it ended."""
        self._unreleased.add(link)

    def doubt(self, links: Iterable[Link], error: LocalError) -> None:
        """A call that would lease to these links has failed, and its answer may have been lost after its commit.

        A row that was leased then and never pushed would stay until the link ends. So everything that the link has is
        let go and pushed again; whoever has it already says so.
        """
        if error.code in UNCERTAIN:
            self._unreleased.update(links)

    def undelivered(self, mesh: MeshId, letters: Sequence[Undelivered]) -> None:
        """Notices were put into the mailboxes of the senders of `letters`."""
        senders = {letter.sender for letter in letters}
        if senders:
            self._hints.waiting(mesh, senders)
            self.look(mesh, senders)

    async def retry_forever(self) -> None:
        """Once a second: what the store or a slow reader held up."""
        while True:
            await asyncio.sleep(RETRY_S)
            unreleased, self._unreleased = self._unreleased, set()
            for link in unreleased:
                mesh = self._directory.cached(link.mesh)
                if mesh is not None:
                    await self._release(mesh, link)
            stalled, self._stalled = self._stalled, set()
            for mesh, mailbox in stalled:
                self.pump(mesh, mailbox)

    async def wait_for_due(self) -> None:
        """Lease scheduled envelopes when their time comes."""
        rung = self._clock()
        while True:
            try:
                due_at = await self._store.next_due(rung)
            except LocalError:
                due_at = UnixMillis(rung + int(RETRY_S * 1_000))
            delay_s = _FAR_S if due_at is None else max(0.0, (due_at - self._clock()) / 1_000)
            try:
                async with asyncio.timeout(min(delay_s, _FAR_S)):
                    await self._due_changed.wait()
            except TimeoutError:
                rung = await self._lease_due(rung)
            self._due_changed.clear()

    async def expire_forever(self) -> None:
        """Drop what nobody fetched in time, and tell the senders."""
        while True:
            await asyncio.sleep(EXPIRE_INTERVAL_S)
            try:
                while await self._expire_some() >= EXPIRE_ROWS:
                    pass
            except LocalError:
                self._metrics.store_failures += 1

    async def _release(self, mesh: Mesh, link: Link) -> None:
        """Let what a link had leased wait again; a lease of the next link that is under way has not seen it."""
        mailbox = mesh.mailbox(link.peer)
        try:
            await self._store.release(link.id)
        except LocalError:
            self._metrics.store_failures += 1
            self._unreleased.add(link)
            self.pump(mesh, mailbox)
        else:
            self.waits(mesh, mailbox)

    async def _expire_some(self) -> int:
        expired = await self._store.expire(self._clock(), EXPIRE_ROWS, self._notice("expired"))
        self._metrics.envelopes_expired += expired.rows
        for mesh_id in {letter.mesh for letter in expired.letters}:
            self.undelivered(mesh_id, [letter for letter in expired.letters if letter.mesh == mesh_id])
        return expired.rows

    async def _lease_due(self, rung: UnixMillis) -> UnixMillis:
        now = self._clock()
        try:
            due = await self._store.due(rung, now)
        except LocalError:
            await asyncio.sleep(RETRY_S)
            return rung
        for mesh_id, peer in due:
            self.look(mesh_id, (peer,))
        return now

    async def _drain(self, mesh: Mesh, mailbox: Mailbox) -> None:
        try:
            most = FIRST_LEASE_ROWS
            while (link := mailbox.newest()) is not None:
                limit = min(link.window.room(), most)
                if limit <= 0:
                    return  # the next acknowledgement pumps again
                if link.outlet.buffered() > self._limits.buffered_bytes:
                    self._stalled.add((mesh, mailbox))
                    return
                counts = mailbox.waiting, mailbox.waiting_elsewhere
                rows = await self._store.lease(mesh.id, mailbox.peer, link.id, self._clock(), limit)
                size = await self._push(mesh, mailbox, link, rows)
                most = min(2 * most, LEASE_ROWS) if size < LEASE_BYTES else FIRST_LEASE_ROWS
                if len(rows) < limit and mailbox.uncommitted:
                    return  # their commit pumps again
                if len(rows) < limit and mailbox.newest() is link and mailbox.found_no_more(*counts):
                    self.settle(link, mailbox)
                    return
        except LocalError as error:
            self._metrics.store_failures += 1
            self._stalled.add((mesh, mailbox))
            self.doubt(mailbox.links, error)
        finally:
            mailbox.leasing = False

    async def _push(self, mesh: Mesh, mailbox: Mailbox, link: Link, rows: Sequence[Leased]) -> int:
        """Write leased rows as fast as they are read; returns how many bytes they have."""
        for row in rows:
            link.window.add(row.q, len(row.payload))
        new = link.unseen({row.attestation for row in rows if row.attestation is not None})
        try:
            attestations = await self._directory.statements(mesh, new) if new else []
        except LocalError:
            link.close(Closing(code="storage", retry_after_ms=int(RETRY_S * 1_000)), audit_reason="storage")
            raise
        deliveries = [delivery(row.q, row.accepted_at, row.kind, row.payload, row.slot) for row in rows]
        for frame in push_frames(deliveries, attestations) if rows else ():
            await self._wait_for_reader(mailbox, link)
            link.outlet.write(frame)
        if link.closed:
            self.returned(link)
        self._metrics.envelopes_pushed += len(rows)
        return sum(map(len, deliveries))

    async def _wait_for_reader(self, mailbox: Mailbox, link: Link) -> None:
        """A reader that is slower than the link that came after it gives way."""
        while link.outlet.buffered() > self._limits.buffered_bytes and not link.closed:
            if mailbox.newest() is not link:
                link.close(Closing(code="limit", detail="slow reader"), audit_reason="limit")
            await asyncio.sleep(_SLOW_READER_POLL_S)
