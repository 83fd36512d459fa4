"""The SQLite store: each call of the contract as one operation of the database."""

import sqlite3
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from claudemesh.broker.store.base import (
    Acknowledgement,
    AuditEvent,
    Beat,
    Expired,
    FannedOut,
    FanOut,
    HeadRow,
    Leased,
    LinkId,
    MeshEnd,
    MeshRow,
    Node,
    NodeId,
    Notice,
    SessionRow,
    Stored,
    Submission,
    Subscription,
    Undelivered,
    Usage,
    Version,
)
from claudemesh.broker.store.sqlite import audit_log, credentials, mailboxes, presence, rosters, subscriptions, usages
from claudemesh.broker.store.sqlite.addresses import Addresses
from claudemesh.broker.store.sqlite.fan_outs import FanOuts
from claudemesh.broker.store.sqlite.leases import Leases
from claudemesh.broker.store.sqlite.nodes import LINKS_PER_NODE, Nodes
from claudemesh.broker.store.sqlite.notices import Notices
from claudemesh.broker.store.sqlite.removals import Removals
from claudemesh.broker.store.sqlite.usages import Usages
from claudemesh.database import Database, load_migrations
from claudemesh.types import BrokerId, ChannelId, Digest, MeshId, PeerId, SessionId, UnixMillis

_PING = "UPDATE readiness SET checks = checks + 1"


class SqliteStore:
    """Everything durable that a broker has, in one file that only this process opens; implements `Store`."""

    def __init__(self, path: Path | None) -> None:
        """Describe a store; `path` None keeps everything in memory."""
        self._addresses = Addresses()
        self._audit_log = audit_log.AuditLog()
        self._leases = Leases()
        self._nodes = Nodes()
        self._usages = Usages(self._addresses)
        self._mailboxes = mailboxes.Mailboxes(self._addresses, self._audit_log, self._leases, self._usages)
        notices = Notices(self._addresses, self._mailboxes, self._usages)
        self._fan_outs = FanOuts(self._addresses, self._audit_log, self._mailboxes, self._leases, self._usages, notices)
        self._removals = Removals(self._addresses, self._audit_log, notices, self._usages)
        self._presence = presence.Presence(self._addresses)
        self._database = Database(
            path,
            migrations=load_migrations("claudemesh.broker.store.sqlite.migrations"),
            on_rollback=self._forget,
        )

    async def open(self) -> None:
        """Open the file; see `Store.open`."""
        await self._database.open()
        await self._database.write(self._mailboxes.load)

    async def close(self) -> None:
        """Finish what was called, then close."""
        await self._database.close()

    async def ping(self) -> None:
        """Commit a real write."""
        await self._database.write(lambda connection: connection.execute(_PING).rowcount)

    async def join(self, broker: BrokerId, *, alone: bool) -> Node:
        """Become a node; see `Store.join`."""
        return self._nodes.join(broker, alone)

    async def beat(self, node: NodeId, lapse_ms: int | None) -> Beat:
        """Say that a node lives; see `Store.beat`."""
        is_alive, dead = self._nodes.beat(node, lapse_ms)
        for one in dead:
            await self._end_node(one)
        return Beat(UnixMillis(time.time_ns() // 1_000_000), is_alive, len(dead))

    async def leave(self, node: NodeId) -> None:
        """A node ends; see `Store.leave`."""
        ended = self._nodes.leave(node)
        if ended is not None:
            await self._end_node(ended)

    async def append(
        self, submissions: Sequence[Submission], now: UnixMillis, expected: Mapping[MeshId, Version] | None = None
    ) -> list[Stored]:
        """Store envelopes; see `Store.append`."""
        if not submissions:
            return []

        def operation(connection: sqlite3.Connection) -> list[Stored]:
            rosters.check_versions(connection, expected)
            return self._mailboxes.append(connection, submissions, now)

        return await self._database.write(operation)

    async def fan_out(
        self, fan_outs: Sequence[FanOut], now: UnixMillis, expected: Mapping[MeshId, Version] | None = None
    ) -> list[FannedOut]:
        """Store channel messages and epochs; see `Store.fan_out`."""
        if not fan_outs:
            return []

        def operation(connection: sqlite3.Connection) -> list[FannedOut]:
            rosters.check_versions(connection, expected)
            return self._fan_outs.store(connection, fan_outs, now)

        return await self._database.write(operation)

    async def lease(self, mesh: MeshId, peer: PeerId, link: LinkId, now: UnixMillis, limit: int) -> list[Leased]:
        """Lease the oldest due rows to `link`; see `Store.lease`."""
        address = (mesh, peer)
        self._leases.register(address, link)
        if self._mailboxes.has_due(now):
            await self._database.write(partial(self._mailboxes.release_due, now=now))
        leased = self._leases.of(address)
        return await self._database.read(
            partial(self._mailboxes.lease, address=address, leased=leased, link=link, limit=limit)
        )

    async def release(self, link: LinkId) -> None:
        """End the leases of a link."""
        self._leases.release(link)

    async def acknowledge(self, mesh: MeshId, peer: PeerId, qs: Sequence[int], now: UnixMillis) -> int:
        """Delete rows of one mailbox; see `Store.acknowledge`."""
        return (await self.acknowledge_many([Acknowledgement(mesh=mesh, peer=peer, qs=qs)], now))[0]

    async def acknowledge_many(self, acks: Sequence[Acknowledgement], now: UnixMillis) -> list[int]:
        """Delete what was acknowledged; see `Store.acknowledge_many`."""
        if not acks:
            return []
        counts = await self._database.write(partial(self._mailboxes.acknowledge, acks=acks, now=now))
        for ack in acks:
            self._leases.drop((ack.mesh, ack.peer), ack.qs)
        return counts

    async def next_due(self, now: UnixMillis) -> UnixMillis | None:
        """The earliest `not_before` after `now`."""
        return await self._database.read(partial(mailboxes.next_due, now=now))

    async def due(self, after: UnixMillis, until: UnixMillis) -> list[tuple[MeshId, PeerId]]:
        """Mailboxes with rows that came due in (after, until]."""
        return await self._database.read(partial(mailboxes.due, after=after, until=until))

    async def waiting(self, mailboxes: Sequence[tuple[MeshId, PeerId]], now: UnixMillis) -> list[tuple[MeshId, PeerId]]:
        """Which mailboxes hold a row that is due and leased to nobody."""
        if self._mailboxes.has_due(now):
            await self._database.write(partial(self._mailboxes.release_due, now=now))
        return await self._database.read(partial(self._mailboxes.waiting, addresses=mailboxes))

    async def expire(self, now: UnixMillis, limit: int, notice: Notice) -> Expired:
        """Delete rows whose time has passed; see `Store.expire`."""
        return await self._database.write(partial(self._removals.expire, now=now, limit=limit, notice=notice))

    async def drop_mailbox(self, mesh: MeshId, peer: PeerId, now: UnixMillis, notice: Notice) -> list[Undelivered]:
        """Delete the mailbox of a revoked peer; see `Store.drop_mailbox`."""
        return await self._database.write(partial(self._removals.drop, address=(mesh, peer), now=now, notice=notice))

    async def drop_sent(self, mesh: MeshId, peer: PeerId, now: UnixMillis, limit: int) -> int:
        """Delete what waits for others of a revoked peer; see `Store.drop_sent`."""
        return await self._database.write(partial(self._removals.drop_sent, address=(mesh, peer), now=now, limit=limit))

    async def drop_channel(self, mesh: MeshId, peer: PeerId, channel: ChannelId, now: UnixMillis) -> int:
        """Delete what waits for a peer of a channel that it has left; see `Store.drop_channel`."""
        return await self._database.write(
            partial(self._removals.drop_channel, address=(mesh, peer), channel=channel, now=now)
        )

    async def mailbox_usage(self, mesh: MeshId, peer: PeerId) -> Usage:
        """What a mailbox holds."""
        return self._usages.find((mesh, peer)) or (await self.mailbox_usages(mesh, [peer]))[0]

    async def mailbox_usages(self, mesh: MeshId, peers: Sequence[PeerId]) -> list[Usage]:
        """What each of many mailboxes holds."""
        found = {peer: self._usages.find((mesh, peer)) for peer in peers}
        missing = [peer for peer, usage in found.items() if usage is None]
        if missing:
            addresses = [(mesh, peer) for peer in missing]
            counted = await self._database.write(partial(self._usages.load, addresses=addresses))
            found.update(zip(missing, counted, strict=True))
        return [usage for peer in peers if (usage := found[peer]) is not None]

    async def mailbox_senders(self, mesh: MeshId, peer: PeerId) -> dict[PeerId, tuple[int, int]]:
        """What a mailbox holds of each sender."""
        return await self._database.read(partial(usages.by_sender, mesh=mesh, peer=peer))

    async def mesh_usage(self, mesh: MeshId) -> Usage:
        """What all mailboxes of a mesh hold."""
        known = self._usages.find_mesh(mesh)
        if known is None:
            known = await self._database.write(partial(self._usages.load_mesh, mesh=mesh))
        return known

    async def subscribe(self, mesh: MeshId, channel: ChannelId, peer: PeerId, wanted: bool | None) -> None:
        """Keep whether a peer wants the posts of a channel; see `Store.subscribe`."""
        await self._database.write(partial(subscriptions.keep, mesh=mesh, channel=channel, peer=peer, wanted=wanted))

    async def subscriptions(self, mesh: MeshId) -> list[Subscription]:
        """Everything that `subscribe` has kept."""
        return await self._database.read(partial(subscriptions.of_mesh, mesh=mesh))

    async def append_entries(
        self,
        mesh: MeshId,
        expected_seq: int,
        entries: Sequence[bytes],
        now: UnixMillis,
        *,
        actor: PeerId | None,
        served: bool,
        head: HeadRow | None = None,
    ) -> bool:
        """Append roster entries by compare-and-swap; see `Store.append_entries`."""
        event = AuditEvent(mesh=mesh, event_type="append", actor=actor, count=len(entries))

        def operation(connection: sqlite3.Connection) -> bool:
            if not rosters.append(connection, mesh, expected_seq, entries, now, served, head):
                return False
            self._audit_log.record(connection, [event], now)
            return True

        return await self._database.write(operation)

    async def mesh_ends(self, meshes: Sequence[MeshId]) -> dict[MeshId, MeshEnd]:
        """Where meshes are now."""
        return await self._database.read(partial(rosters.ends, meshes=meshes))

    async def renew_head(self, mesh: MeshId, head: HeadRow, older_than: UnixMillis) -> HeadRow | None:
        """Keep a newer signature; see `Store.renew_head`."""
        return await self._database.write(partial(rosters.renew_head, mesh=mesh, head=head, older_than=older_than))

    async def entries(self, mesh: MeshId, from_seq: int, limit: int) -> list[bytes]:
        """Roster entries from `from_seq` on."""
        return await self._database.read(partial(rosters.entries, mesh=mesh, from_seq=from_seq, limit=limit))

    async def meshes(self) -> list[MeshRow]:
        """Every mesh, the oldest first."""
        return await self._database.read(rosters.meshes)

    async def find_mesh(self, prefix: str) -> MeshId | None:
        """The mesh whose id starts with `prefix`."""
        return await self._database.read(partial(rosters.find, prefix=prefix))

    async def delete_mesh(self, mesh: MeshId, *, unserved_before: UnixMillis) -> bool:
        """Delete a mesh that is not served, and all that belongs to it; see `Store.delete_mesh`."""

        def operation(connection: sqlite3.Connection) -> bool:
            is_useless = rosters.is_unserved(connection, mesh, unserved_before)
            if is_useless:
                rosters.delete(connection, mesh)
                self._forget()
            return is_useless

        return await self._database.write(operation)

    async def put_card(self, mesh: MeshId, member: PeerId, number: int, card: bytes) -> bool:
        """Keep a card whose number is higher than the one kept."""
        return await self._database.write(
            partial(credentials.put_card, mesh=mesh, member=member, number=number, card=card)
        )

    async def cards(self, mesh: MeshId, members: Sequence[PeerId]) -> dict[PeerId, bytes]:
        """The newest card of each member that has one."""
        return await self._database.read(partial(credentials.cards, mesh=mesh, members=members))

    async def put_attestation(
        self,
        mesh: MeshId,
        member: PeerId,
        digest: Digest,
        expires_at: UnixMillis,
        statement: bytes,
        *,
        session: SessionId,
    ) -> None:
        """Keep an attestation."""
        await self._database.write(
            partial(
                credentials.put_attestation,
                mesh=mesh,
                member=member,
                digest=digest,
                expires_at=expires_at,
                statement=statement,
                session=session,
            )
        )

    async def session_attestations(self, mesh: MeshId, sessions: Sequence[SessionId]) -> dict[SessionId, bytes]:
        """Of each session the attestation that ends last."""
        return await self._database.read(partial(credentials.session_attestations, mesh=mesh, sessions=sessions))

    async def attestations(self, digests: Sequence[Digest]) -> dict[Digest, bytes]:
        """Those of `digests` that are kept."""
        return await self._database.read(partial(credentials.attestations, digests=digests))

    async def expire_attestations(self, now: UnixMillis) -> int:
        """Delete attestations that no queued envelope can name any more."""
        return await self._database.write(partial(credentials.expire_attestations, now=now))

    async def set_presence(self, sessions: Sequence[SessionRow]) -> None:
        """Announce sessions, or replace what was announced."""
        await self._database.write(partial(self._presence.set, sessions=sessions))

    async def take_over(self, session: SessionRow) -> LinkId | None:
        """Announce the session of a link that has just opened; see `Store.take_over`."""
        before = await self._database.write(partial(self._presence.take_over, session=session))
        if before is not None:
            self._leases.release(before)
        return before

    async def set_statuses(self, statuses: Sequence[tuple[LinkId, SessionId, str]]) -> None:
        """Change what sessions say of themselves."""
        await self._database.write(partial(self._presence.set_statuses, statuses=statuses))

    async def arrive(self, mesh: MeshId, peer: PeerId) -> bool:
        """A peer has announced a session."""
        return await self._database.write(partial(self._presence.arrive, mesh=mesh, peer=peer))

    async def depart(self, mesh: MeshId, peer: PeerId) -> bool:
        """A peer is absent from now on."""
        return await self._database.write(partial(self._presence.depart, mesh=mesh, peer=peer))

    async def depart_absent(self, before: UnixMillis, limit: int) -> list[tuple[MeshId, PeerId]]:
        """Peers without a session are absent from now on."""
        return await self._database.write(partial(self._presence.depart_absent, before=before, limit=limit))

    async def touch_presence(self, links: Sequence[LinkId], now: UnixMillis) -> None:
        """Renew every session of these links."""
        await self._database.write(partial(self._presence.touch, links=links, now=now))

    async def end_session(self, mesh: MeshId, peer: PeerId, session: SessionId) -> None:
        """Remove one session."""
        await self._database.write(partial(self._presence.end_session, mesh=mesh, peer=peer, session=session))

    async def clear_presence(self, link: LinkId) -> None:
        """Remove the sessions of a link that has ended."""
        await self._database.write(partial(self._presence.clear, link=link))

    async def expire_presence(self, before: UnixMillis) -> list[SessionRow]:
        """Remove the sessions last seen before `before`."""
        return await self._database.write(partial(self._presence.expire, before=before))

    async def presence(self, mesh: MeshId) -> list[SessionRow]:
        """The sessions that are connected now."""
        return await self._database.read(partial(presence.sessions_of, mesh=mesh))

    async def last_seen(self, mesh: MeshId) -> dict[PeerId, UnixMillis]:
        """When each peer was last heard from."""
        return await self._database.read(partial(presence.last_seen, mesh=mesh))

    async def audit(self, events: Sequence[AuditEvent], now: UnixMillis) -> None:
        """Record events in order."""
        if events:
            await self._database.write(partial(self._audit_log.record, events=events, now=now))

    async def audit_rows(self, mesh: MeshId, from_n: int, limit: int) -> list[str]:
        """Audit rows from number `from_n` on, as the canonical JSON that was hashed."""
        return await self._database.read(partial(audit_log.rows_of, mesh=mesh, from_n=from_n, limit=limit))

    async def audit_head(self, mesh: MeshId) -> tuple[int, Digest]:
        """How many audit rows a mesh has, and the hash of the last one."""
        return await self._database.read(partial(audit_log.head_of, mesh=mesh))

    async def _end_node(self, node: Node) -> None:
        first, end = node.first_link, LinkId(node.first_link + LINKS_PER_NODE)
        for link in self._leases.links(first, end):
            self._leases.release(link)
        await self._database.write(partial(self._presence.clear_links, first=first, end=end))

    def _forget(self) -> None:
        self._addresses.forget()
        self._audit_log.forget()
        self._usages.forget()
