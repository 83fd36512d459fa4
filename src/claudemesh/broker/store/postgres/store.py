"""The PostgreSQL store: each call of the contract as one operation of the writing lane, or as one read."""

from collections.abc import Mapping, Sequence
from functools import partial

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
from claudemesh.broker.store.postgres import (
    audit_log,
    credentials,
    leases,
    mailboxes,
    nodes,
    presence,
    removals,
    rosters,
    subscriptions,
)
from claudemesh.broker.store.postgres.addresses import Addresses, columns_of
from claudemesh.broker.store.postgres.connection import connect, translated
from claudemesh.broker.store.postgres.fan_outs import FanOuts
from claudemesh.broker.store.postgres.lane import Lane
from claudemesh.broker.store.postgres.migrating import known_steps, migrate
from claudemesh.broker.store.postgres.notices import Notices
from claudemesh.broker.store.postgres.own_nodes import OwnNodes
from claudemesh.broker.store.postgres.reading import Readers
from claudemesh.broker.store.postgres.transaction import Transaction
from claudemesh.broker.store.postgres.usages import BY_SENDER, COUNT_ALL, Usages
from claudemesh.broker.store.url import DatabaseUrl
from claudemesh.types import ZERO_DIGEST, BrokerId, ChannelId, Digest, MeshId, PeerId, SessionId, UnixMillis

_PING = "UPDATE readiness SET checks = checks + 1"


class PostgresStore:
    """Everything durable that a broker has, in a database that many nodes may share; implements `Store`."""

    def __init__(self, url: DatabaseUrl, lane: type[Lane] = Lane) -> None:
        """Describe a store with its kind of writing lane; nothing is connected before `open`."""
        self._url = url
        self._own_nodes = OwnNodes(url)
        self._addresses = Addresses()
        self._leases = leases.Leases()
        self._usages = Usages()
        self._mailboxes = mailboxes.Mailboxes(self._addresses, self._leases, self._usages)
        told = Notices(self._addresses, self._usages)
        self._fan_outs = FanOuts(self._addresses, self._leases, self._usages, told)
        self._removals = removals.Removals(told, self._usages)
        self._lane = lane(self._own_nodes.reconnect, self._forget)
        self._gathering = leases.Gathering(self._leases, self._lane)
        self._readers = Readers(partial(connect, url))

    async def open(self) -> None:
        """Connect and bring the schema up to date; see `Store.open`."""
        patient = await connect(self._url, patient=True)
        try:
            with translated():
                await migrate(patient, known_steps())
        finally:
            await patient.close()
        self._lane.start(await connect(self._url))

    async def close(self) -> None:
        """Finish what was called, then close; a broker that was alone lets its place go, for whoever comes next."""
        await self._own_nodes.let_go(self._lane)
        await self._lane.stop()
        await self._readers.close()

    async def ping(self) -> None:
        """Commit a real write."""
        await self._lane.do(lambda transaction: transaction.execute(_PING))

    # Nodes

    async def join(self, broker: BrokerId, *, alone: bool) -> Node:
        """Become a node; see `Store.join`."""
        node = await self._own_nodes.join(self._lane, broker, alone=alone)
        self._usages.shared = not alone
        return node

    async def beat(self, node: NodeId, lapse_ms: int | None) -> Beat:
        """Say that a node lives; see `Store.beat`."""
        beat, buried = await self._lane.do(partial(nodes.beat, node=node, lapse_ms=lapse_ms))
        for one in buried:
            self._leases.forget_all(*nodes.links_of(one))
        return beat

    async def leave(self, node: NodeId) -> None:
        """A node ends; see `Store.leave`."""
        self._leases.forget_all(*nodes.links_of(node))
        await self._own_nodes.leave(self._lane, node)

    # Mailboxes

    async def append(
        self, submissions: Sequence[Submission], now: UnixMillis, expected: Mapping[MeshId, Version] | None = None
    ) -> list[Stored]:
        """Store envelopes; see `Store.append`."""
        if not submissions:
            return []

        async def operation(transaction: Transaction) -> list[Stored]:
            transaction.check(expected)
            return await self._mailboxes.append(transaction, submissions, now)

        return await self._lane.do(operation, {one.mesh for one in submissions} | {*(expected or ())})

    async def fan_out(
        self, fan_outs: Sequence[FanOut], now: UnixMillis, expected: Mapping[MeshId, Version] | None = None
    ) -> list[FannedOut]:
        """Store channel messages and epochs; see `Store.fan_out`."""
        if not fan_outs:
            return []

        async def operation(transaction: Transaction) -> list[FannedOut]:
            transaction.check(expected)
            return await self._fan_outs.store(transaction, fan_outs, now)

        return await self._lane.do(operation, {one.mesh for one in fan_outs} | {*(expected or ())})

    async def lease(self, mesh: MeshId, peer: PeerId, link: LinkId, now: UnixMillis, limit: int) -> list[Leased]:
        """Lease the oldest due rows to `link`; see `Store.lease`."""
        address = (mesh, peer)
        self._leases.register(address, link)
        return await self._gathering.lease(address, link, now, limit)

    async def release(self, link: LinkId) -> None:
        """End the leases of a link; what it held before is behind it in the lane, and nothing comes after."""
        address = self._leases.forget(link)
        if address is not None:
            await self._lane.do(partial(leases.release, address=address, link=link))

    async def acknowledge(self, mesh: MeshId, peer: PeerId, qs: Sequence[int], now: UnixMillis) -> int:
        """Delete rows of one mailbox; see `Store.acknowledge`."""
        return (await self.acknowledge_many([Acknowledgement(mesh=mesh, peer=peer, qs=qs)], now))[0]

    async def acknowledge_many(self, acks: Sequence[Acknowledgement], now: UnixMillis) -> list[int]:
        """Delete what was acknowledged; see `Store.acknowledge_many`."""
        if not acks:
            return []
        return await self._lane.do(partial(self._mailboxes.acknowledge, acks=acks, now=now), {ack.mesh for ack in acks})

    async def next_due(self, now: UnixMillis) -> UnixMillis | None:
        """The earliest `not_before` after `now`."""
        [(found,)] = await self._readers.fetch(mailboxes.NEXT_DUE, now)
        return None if found is None else UnixMillis(found)

    async def due(self, after: UnixMillis, until: UnixMillis) -> list[tuple[MeshId, PeerId]]:
        """Mailboxes with rows that came due in (after, until]."""
        return [(mesh, peer) for mesh, peer in await self._readers.fetch(mailboxes.DUE, after, until)]

    async def waiting(self, mailboxes: Sequence[tuple[MeshId, PeerId]], now: UnixMillis) -> list[tuple[MeshId, PeerId]]:
        """Which mailboxes hold a row that is due and leased to nobody."""
        if not mailboxes:
            return []
        return [(mesh, peer) for mesh, peer in await self._readers.fetch(leases.WAITING, *columns_of(mailboxes), now)]

    async def expire(self, now: UnixMillis, limit: int, notice: Notice) -> Expired:
        """Delete rows whose time has passed; see `Store.expire`."""
        meshes = [MeshId(mesh) for (mesh,) in await self._readers.fetch(removals.EXPIRED_MESHES, now, limit)]
        if not meshes:
            return Expired(0, [])
        operation = partial(self._removals.expire, meshes=meshes, now=now, limit=limit, notice=notice)
        return await self._lane.do(operation, meshes)

    async def drop_mailbox(self, mesh: MeshId, peer: PeerId, now: UnixMillis, notice: Notice) -> list[Undelivered]:
        """Delete the mailbox of a revoked peer; see `Store.drop_mailbox`."""
        return await self._lane.do(partial(self._removals.drop, address=(mesh, peer), now=now, notice=notice), [mesh])

    async def drop_sent(self, mesh: MeshId, peer: PeerId, now: UnixMillis, limit: int) -> int:
        """Delete what waits for others of a revoked peer; see `Store.drop_sent`."""
        operation = partial(self._removals.drop_sent, address=(mesh, peer), now=now, limit=limit)
        return await self._lane.do(operation, [mesh])

    async def drop_channel(self, mesh: MeshId, peer: PeerId, channel: ChannelId, now: UnixMillis) -> int:
        """Delete what waits for a peer of a channel that it has left; see `Store.drop_channel`."""
        operation = partial(self._removals.drop_channel, address=(mesh, peer), channel=channel, now=now)
        return await self._lane.do(operation, [mesh])

    async def mailbox_usage(self, mesh: MeshId, peer: PeerId) -> Usage:
        """What a mailbox holds."""
        return self._usages.find((mesh, peer)) or (await self.mailbox_usages(mesh, [peer]))[0]

    async def mailbox_usages(self, mesh: MeshId, peers: Sequence[PeerId]) -> list[Usage]:
        """What each of many mailboxes holds."""
        found = {peer: self._usages.find((mesh, peer)) for peer in peers}
        missing = [peer for peer, usage in found.items() if usage is None]
        if missing:
            addresses = [(mesh, peer) for peer in missing]
            counted = await self._lane.do(partial(self._usages.load, addresses=addresses))
            found.update(zip(missing, counted, strict=True))
        return [usage for peer in peers if (usage := found[peer]) is not None]

    async def mailbox_senders(self, mesh: MeshId, peer: PeerId) -> dict[PeerId, tuple[int, int]]:
        """What a mailbox holds of each sender; counted beside the lane."""
        found = await self._readers.fetch(BY_SENDER, mesh, peer)
        return {sender: (rows, size) for sender, rows, size in found}

    async def mesh_usage(self, mesh: MeshId) -> Usage:
        """What all mailboxes of a mesh hold; counted beside the lane, which does not wait for it."""
        known = self._usages.find_mesh(mesh)
        if known is None:
            [(rows, size)] = await self._readers.fetch(COUNT_ALL, mesh)
            known = Usage(rows, size)
            self._usages.keep_mesh(mesh, known)
        return known

    # Subscriptions

    async def subscribe(self, mesh: MeshId, channel: ChannelId, peer: PeerId, wanted: bool | None) -> None:
        """Keep whether a peer wants the posts of a channel; see `Store.subscribe`."""
        operation = partial(subscriptions.keep, mesh=mesh, channel=channel, peer=peer, wanted=wanted)
        await self._lane.do(operation, [mesh])

    async def subscriptions(self, mesh: MeshId) -> list[Subscription]:
        """Everything that `subscribe` has kept."""
        return [Subscription(*row) for row in await self._readers.fetch(subscriptions.ALL, mesh)]

    # Rosters

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
        added = rosters.Added(mesh, expected_seq, entries, actor, served, head)
        return await self._lane.do(partial(rosters.append, added=added, now=now), [mesh])

    async def mesh_ends(self, meshes: Sequence[MeshId]) -> dict[MeshId, MeshEnd]:
        """Where meshes are now."""
        return rosters.ends_of(await self._readers.fetch(rosters.ENDS, list(meshes)))

    async def renew_head(self, mesh: MeshId, head: HeadRow, older_than: UnixMillis) -> HeadRow | None:
        """Keep a newer signature; see `Store.renew_head`."""
        return await self._lane.do(partial(rosters.renew_head, mesh=mesh, head=head, older_than=older_than), [mesh])

    async def entries(self, mesh: MeshId, from_seq: int, limit: int) -> list[bytes]:
        """Roster entries from `from_seq` on."""
        return [entry for (entry,) in await self._readers.fetch(rosters.ENTRIES, mesh, from_seq, limit)]

    async def meshes(self) -> list[MeshRow]:
        """Every mesh, the oldest first."""
        return [MeshRow(*row) for row in await self._readers.fetch(rosters.MESHES)]

    async def find_mesh(self, prefix: str) -> MeshId | None:
        """The mesh whose id starts with `prefix`."""
        found = await self._readers.fetch(rosters.BY_PREFIX, prefix)
        return MeshId(found[0][0]) if len(found) == 1 else None

    async def delete_mesh(self, mesh: MeshId, *, unserved_before: UnixMillis) -> bool:
        """Delete a mesh that is not served, and all that belongs to it; see `Store.delete_mesh`."""

        async def operation(transaction: Transaction) -> bool:
            is_useless = await rosters.is_unserved(transaction, mesh, unserved_before)
            if is_useless:
                await rosters.delete(transaction, mesh)
                self._forget()
            return is_useless

        return await self._lane.do(operation, [mesh])

    # Cards and attestations

    async def put_card(self, mesh: MeshId, member: PeerId, number: int, card: bytes) -> bool:
        """Keep a card whose number is higher than the one kept."""
        return await self._lane.do(partial(credentials.put_card, mesh=mesh, member=member, number=number, card=card))

    async def cards(self, mesh: MeshId, members: Sequence[PeerId]) -> dict[PeerId, bytes]:
        """The newest card of each member that has one."""
        return dict(await self._readers.fetch(credentials.CARDS, mesh, list(members)))

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
        row = (digest, mesh, member, session, expires_at, statement)
        await self._lane.do(lambda transaction: transaction.execute(credentials.PUT_ATTESTATION, *row))

    async def session_attestations(self, mesh: MeshId, sessions: Sequence[SessionId]) -> dict[SessionId, bytes]:
        """Of each session the attestation that ends last."""
        return dict(await self._readers.fetch(credentials.OF_SESSIONS, mesh, list(sessions)))

    async def attestations(self, digests: Sequence[Digest]) -> dict[Digest, bytes]:
        """Those of `digests` that are kept."""
        return dict(await self._readers.fetch(credentials.ATTESTATIONS, list(digests)))

    async def expire_attestations(self, now: UnixMillis) -> int:
        """Delete attestations that no queued envelope can name any more."""
        return await self._lane.do(partial(credentials.expire_attestations, now=now))

    # Presence

    async def set_presence(self, sessions: Sequence[SessionRow]) -> None:
        """Announce sessions, or replace what was announced."""
        await self._lane.do(partial(presence.announce, sessions=sessions))

    async def take_over(self, session: SessionRow) -> LinkId | None:
        """Announce the session of a link that has just opened; see `Store.take_over`."""
        return await self._lane.do(partial(self._leases.take_over, session=session), [session.mesh])

    async def set_statuses(self, statuses: Sequence[tuple[LinkId, SessionId, str]]) -> None:
        """Change what sessions say of themselves."""
        await self._lane.do(partial(presence.set_statuses, statuses=statuses))

    async def arrive(self, mesh: MeshId, peer: PeerId) -> bool:
        """A peer has announced a session."""
        return await self._lane.do(partial(presence.arrive, mesh=mesh, peer=peer))

    async def depart(self, mesh: MeshId, peer: PeerId) -> bool:
        """A peer is absent from now on."""
        return await self._lane.do(partial(presence.depart, mesh=mesh, peer=peer))

    async def depart_absent(self, before: UnixMillis, limit: int) -> list[tuple[MeshId, PeerId]]:
        """Peers without a session are absent from now on."""
        return await self._lane.do(partial(presence.depart_absent, before=before, limit=limit))

    async def touch_presence(self, links: Sequence[LinkId], now: UnixMillis) -> None:
        """Renew every session of these links."""
        await self._lane.do(partial(presence.touch, links=links, now=now))

    async def end_session(self, mesh: MeshId, peer: PeerId, session: SessionId) -> None:
        """Remove one session."""
        await self._lane.do(partial(presence.end_session, mesh=mesh, peer=peer, session=session))

    async def clear_presence(self, link: LinkId) -> None:
        """Remove the sessions of a link that has ended."""
        await self._lane.do(partial(presence.clear_links, first=link, end=LinkId(link + 1)))

    async def expire_presence(self, before: UnixMillis) -> list[SessionRow]:
        """Remove the sessions last seen before `before`."""
        return await self._lane.do(partial(presence.expire, before=before))

    async def presence(self, mesh: MeshId) -> list[SessionRow]:
        """The sessions that are connected now."""
        return presence.sessions_of(await self._readers.fetch(presence.OF_MESH, mesh))

    async def last_seen(self, mesh: MeshId) -> dict[PeerId, UnixMillis]:
        """When each peer was last heard from."""
        return dict(await self._readers.fetch(presence.LAST_SEEN, mesh))

    # Audit log

    async def audit(self, events: Sequence[AuditEvent], now: UnixMillis) -> None:
        """Record events in order."""
        if events:
            await self._lane.do(partial(audit_log.record, events=events, now=now), {event.mesh for event in events})

    async def audit_rows(self, mesh: MeshId, from_n: int, limit: int) -> list[str]:
        """Audit rows from number `from_n` on, as the canonical JSON that was hashed."""
        return [
            audit_log.canonical(mesh, row) for row in await self._readers.fetch(audit_log.ROWS, mesh, from_n, limit)
        ]

    async def audit_head(self, mesh: MeshId) -> tuple[int, Digest]:
        """How many audit rows a mesh has, and the hash of the last one."""
        for n, head in await self._readers.fetch(audit_log.HEAD, mesh):
            return n, Digest(head)
        return 0, ZERO_DIGEST

    def _forget(self) -> None:
        self._addresses.forget()
        self._usages.forget()
