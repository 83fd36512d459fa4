"""Links of members: opening, ending, and what a change of the roster does to them (docs/spec/broker.md §2, §5)."""

import asyncio
from collections.abc import Iterable
from typing import Final, cast

from claudemesh.broker.announcing import MOVE_GRACE_MS, Change, close_removed
from claudemesh.broker.core import Core
from claudemesh.broker.directory import KnownAttestation, Mesh, encode_statement
from claudemesh.broker.links import Link, Outlet, open_window
from claudemesh.broker.notices import presence_event, show, undelivered_notice
from claudemesh.broker.policy import link_bucket, request_bucket
from claudemesh.broker.presence import Connected
from claudemesh.broker.store.base import AuditEvent, LinkId, SessionRow
from claudemesh.crypto.identity import Attestation
from claudemesh.errors import LocalError, Refused
from claudemesh.protocol.audit_rows import REASONS, EventType, Reason
from claudemesh.protocol.link import BrokerLink, HelloReceived
from claudemesh.protocol.message_rules import PEER_CAPABILITY
from claudemesh.protocol.messages import Closing
from claudemesh.types import ChannelId, MeshId, PeerId, UnixMillis

TOUCH_INTERVAL_MS: Final = 15_000
AUDIT_INTERVAL_MS: Final = 60_000
DEPART_INTERVAL_MS: Final = 5_000
DEPART_ROWS: Final = 1_000
DROP_ROWS: Final = 256
"""In one transaction, for which envelopes wait."""
_SLOW_READER_POLL_S: Final = 0.05


class Members:
    """Opens and ends links of members."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._touched_at = self._audited_at = self._departed_at = core.clock()

    async def open(self, received: HelloReceived, proto: BrokerLink, outlet: Outlet) -> tuple[Mesh, Link]:
        """Admit a member's link; when this returns, `hello_ack`, the roster and the first pushes are on their way.

        Raises:
            Refused: `unknown_mesh`, `unknown_peer`, `revoked`, or `rate_limited` when the peer reads nothing of the
                roster that it asked for; the link is to be closed.
            LocalError: The store failed; the link is to be closed.
        """
        core, hello = self._core, received.hello
        async with core.directory.using(hello.mesh) as mesh:
            if mesh is None or not (mesh.serves(core.id) or mesh.has_moved(core.id)):
                raise Refused("unknown_mesh")
            self._check_member(mesh, hello.member)
            attestation = received.attestation
            known = KnownAttestation(attestation, encode_statement(received.message.att))
            await core.store.put_attestation(
                mesh.id,
                hello.member,
                attestation.digest,
                attestation.expires_at,
                known.statement,
                session=attestation.session,
            )
            mesh.remember(known, core.clock())
            if received.message.cursor and not _is_restricted(attestation):
                await core.store.acknowledge(mesh.id, hello.member, received.message.cursor, core.clock())
            audit_n, audit_head = await core.store.audit_head(mesh.id)
            usage = await core.store.mailbox_usage(mesh.id, hello.member)
            sth = core.ordering.head(mesh)
            outlet.vouch()
            outlet.write(proto.accept_hello(audit_n, audit_head, sth, usage.rows, core.clock()))
            async for page in core.ordering.pages(mesh, hello.roster_seq + 1):
                await self._wait_for_reader(outlet)
                outlet.write(page)
            self._check_member(mesh, hello.member)
            link = self._attach(mesh, received, outlet)
            link.seen_head = sth
        await self._record(mesh, link, received)
        return mesh, link

    async def _wait_for_reader(self, outlet: Outlet) -> None:
        """A log may be longer than what is buffered for a link before it is cut off."""
        buffered, since = outlet.buffered(), self._core.clock()
        while outlet.buffered() > self._core.limits.buffered_bytes:
            await asyncio.sleep(_SLOW_READER_POLL_S)
            if outlet.buffered() < buffered:
                buffered, since = outlet.buffered(), self._core.clock()
            elif self._core.clock() - since >= self._core.limits.presence_lease_ms:
                raise Refused("rate_limited", "slow reader")

    async def ended(self, mesh: Mesh, link: Link, silent: bool) -> None:
        """A link has ended, whatever the reason; `silent` says that its presence lease ran out."""
        core = self._core
        link.closed = True
        mesh.links.pop(link.id, None)
        now = core.clock()
        core.presence.link_closed(link.mesh, link.peer, link.id, link.heard_at, now)
        if silent and core.presence.link_silent(link.mesh, link.peer) and core.is_alone:
            self._tell(mesh, "peer_left", link.peer, "lost")
        is_draining = link.audit_reason == "draining"
        if not is_draining:  # the next process learns from the store who will come back
            try:
                await core.store.clear_presence(link.id)
            except LocalError:
                core.metrics.store_failures += 1
        if is_draining and not core.is_alone:
            mesh.mailbox(link.peer).detach(link)  # what it had leased is free as soon as this node has left
        else:
            await core.leasing.link_ended(mesh, link)

    def changed(self, change: Change) -> None:
        """The roster of a mesh has changed."""
        core, mesh = self._core, change.mesh
        close_removed(change)
        for peer in change.removed:
            was_present = core.presence.removed(mesh.id, peer)
            if not core.is_alone:
                core.spawn(self._depart(mesh, peer))
            elif was_present:
                self._tell(mesh, "peer_left", peer, "revoked")
            mesh.subscriptions.forget(peer)
            core.spawn(self._drop_mailbox(mesh, peer))
            core.spawn(self._drop_sent(mesh, peer))
        for peer, channel in change.left:
            mesh.subscriptions.forget(peer, channel)
            core.spawn(self._drop_channel(mesh, peer, channel))
        for link in list(mesh.links.values()):
            core.leasing.settle(link, mesh.mailbox(link.peer))

    async def sweep(self) -> None:
        """Once a second: who has left, and which presence leases to renew in the store."""
        core, now = self._core, self._core.clock()
        gone = core.presence.left(now)
        if not core.is_alone:
            gone = await self._departed(now)
        for mesh_id, peer in gone:
            mesh = core.directory.cached(mesh_id)
            if mesh is not None:
                self._tell(mesh, "peer_left", peer, "lost")
        for mesh in core.directory.loaded():
            for link in [link for link in mesh.links.values() if link.leaving_at is not None]:
                core.leasing.settle(link, mesh.mailbox(link.peer))
        statuses = core.presence.take_statuses()
        if statuses and not core.is_alone:
            await core.store.set_statuses(statuses)
        if now - self._touched_at >= TOUCH_INTERVAL_MS:
            since, self._touched_at = self._touched_at, now
            links = [
                link.id for mesh in core.directory.loaded() for link in mesh.links.values() if link.heard_at >= since
            ]
            if links:
                await core.store.touch_presence(links, now)
        if now - self._audited_at >= AUDIT_INTERVAL_MS:
            await self.audit_refusals()

    async def audit_refusals(self) -> None:
        """Record refusals: one row for those of one peer with one reason."""
        self._audited_at = self._core.clock()
        counted, self._core.metrics.unaudited = self._core.metrics.unaudited, {}
        await self._audit(
            AuditEvent(mesh=mesh, event_type="refuse", actor=peer, count=count, reason=cast(Reason, code))
            for (mesh, peer, code), count in counted.items()
            if code in REASONS
        )

    def _check_member(self, mesh: Mesh, peer: PeerId) -> None:
        member = mesh.roster.member(peer)
        if member is None:
            raise Refused("unknown_peer")
        if not member.active:
            raise Refused("revoked")

    def _attach(self, mesh: Mesh, received: HelloReceived, outlet: Outlet) -> Link:
        core, now = self._core, self._core.clock()
        attestation = received.attestation
        mailbox = mesh.mailbox(received.hello.member)
        restricted = _is_restricted(attestation)
        self._make_room(_restricted_links(mesh, mailbox.peer) if restricted else mailbox.links, attestation.session)
        link = Link(
            id=core.heart.next_link(),
            mesh=mesh.id,
            peer=mailbox.peer,
            session=attestation.session,
            outlet=outlet,
            window=open_window(core.limits),
            messages=link_bucket(core.limits, now),
            requests=request_bucket(core.limits, now),
            heard_at=now,
            is_restricted=restricted,
        )
        if mesh.has_moved(core.id):
            link.leaving_at = UnixMillis(now + MOVE_GRACE_MS)
        mesh.links[link.id] = link
        if core.presence.link_opened(mesh.id, link.peer, now) and core.is_alone:
            self._tell(mesh, "peer_joined", link.peer)
        message = received.message
        core.presence.announce(
            mesh.id, link.peer, link.session, Connected(link.id, message.att, message.status, message.sid, now)
        )
        if not restricted:
            mailbox.attach(link)
            core.leasing.pump(mesh, mailbox)
        core.metrics.links_opened += 1
        return link

    def _make_room(self, links: list[Link], session: str) -> None:
        """A session has one link, a peer a few: the oldest gives way."""
        for old in [link for link in links if link.session == session and not link.closed]:
            self._replace(old)
        open_links = [link for link in links if not link.closed]
        for old in open_links[: max(0, len(open_links) - self._core.limits.links_per_peer + 1)]:
            self._replace(old)

    def _replace(self, link: Link) -> None:
        self._core.metrics.links_replaced += 1
        link.close(Closing(code="replaced"), audit_reason="replaced")

    async def _record(self, mesh: Mesh, link: Link, received: HelloReceived) -> None:
        """Presence in the store is for after a restart and for other nodes: that it cannot be written ends no link."""
        message, now = received.message, self._core.clock()
        row = SessionRow(
            mesh=link.mesh,
            peer=link.peer,
            session=link.session,
            link=link.id,
            connected_at=now,
            last_seen=now,
            status=message.status,
            sid=message.sid,
            pid=message.pid,
            cwd=message.cwd,
        )
        try:
            before = await self._core.store.take_over(row)
            if not self._core.is_alone:
                await self._arrive(mesh, link, before)
        except LocalError:
            self._core.metrics.store_failures += 1

    async def _arrive(self, mesh: Mesh, link: Link, before: LinkId | None) -> None:
        """The session of a link may have had another one elsewhere: what that had leased waits again."""
        core = self._core
        if before is not None:
            core.hints.superseded(mesh.id, before)
            core.leasing.waits(mesh, mesh.mailbox(link.peer))
        if await core.store.arrive(mesh.id, link.peer):
            self._tell(mesh, "peer_joined", link.peer)

    async def _depart(self, mesh: Mesh, peer: PeerId) -> None:
        """A peer was revoked, which every node learns: one of them tells that it has left."""
        try:
            if await self._core.store.depart(mesh.id, peer):
                self._tell(mesh, "peer_left", peer, "revoked")
        except LocalError:
            self._core.metrics.store_failures += 1

    async def _departed(self, now: UnixMillis) -> list[tuple[MeshId, PeerId]]:
        """Peers that no node has had a link of for the grace; each node asks, and each peer is told of once."""
        core = self._core
        if now - self._departed_at < DEPART_INTERVAL_MS:
            return []
        self._departed_at = now
        before = UnixMillis(now - core.limits.rejoin_grace_ms)
        gone = await core.store.depart_absent(before, DEPART_ROWS)
        for mesh_id in {mesh_id for mesh_id, _ in gone}:
            await core.directory.find(mesh_id)  # who is told has links here, or hears it from the bus
        return gone

    async def _drop_mailbox(self, mesh: Mesh, peer: PeerId) -> None:
        core = self._core
        notice = undelivered_notice(core.key, core.clock, "revoked")
        try:
            letters = await core.store.drop_mailbox(mesh.id, peer, core.clock(), notice)
        except LocalError:
            core.metrics.store_failures += 1  # the rows expire
            return
        core.leasing.undelivered(mesh.id, letters)

    async def _drop_sent(self, mesh: Mesh, peer: PeerId) -> None:
        """What a peer that was removed sent is refused by whoever gets it; until then it takes the room of others."""
        core, dropped = self._core, DROP_ROWS
        while dropped == DROP_ROWS:
            try:
                dropped = await core.store.drop_sent(mesh.id, peer, core.clock(), DROP_ROWS)
            except LocalError:
                core.metrics.store_failures += 1  # the rows expire
                return

    async def _drop_channel(self, mesh: Mesh, peer: PeerId, channel: ChannelId) -> None:
        try:
            await self._core.store.drop_channel(mesh.id, peer, channel, self._core.clock())
        except LocalError:
            self._core.metrics.store_failures += 1  # the rows expire

    def _tell(self, mesh: Mesh, event: str, peer: PeerId, reason: Reason | None = None) -> None:
        """Announce that a peer joined or left; the audit log gets the same event."""
        core, now = self._core, self._core.clock()
        limits = core.limits
        if len(mesh.links) <= limits.presence_fanout_links and (mesh.links or not core.is_alone):
            statement = presence_event(mesh.id, event, peer, core.key, now)
            show(mesh, peer, statement, limits.presence_fanout_links, limits.buffered_bytes)
            core.hints.said(mesh.id, peer, statement)
        kind: EventType = "connect" if event == "peer_joined" else "disconnect"
        core.spawn(self._audit([AuditEvent(mesh=mesh.id, event_type=kind, actor=peer, reason=reason)]))

    async def _audit(self, events: Iterable[AuditEvent]) -> None:
        try:
            await self._core.store.audit(list(events), self._core.clock())
        except LocalError:
            self._core.metrics.store_failures += 1


def _is_restricted(attestation: Attestation) -> bool:
    """Whether a session may not speak for its whole peer, as one that was handed to a container or CI job."""
    return PEER_CAPABILITY not in attestation.capabilities


def _restricted_links(mesh: Mesh, peer: PeerId) -> list[Link]:
    return [link for link in mesh.links.values() if link.peer == peer and link.is_restricted]
