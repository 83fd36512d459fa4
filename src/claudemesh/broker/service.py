"""What an open link may ask for, one method per message (docs/spec/wire.md §3.5 to §7)."""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from claudemesh.broker import audit
from claudemesh.broker.admission import object_to_session
from claudemesh.broker.core import Core
from claudemesh.broker.directory import KnownAttestation, Mesh, encode_statement, is_key
from claudemesh.broker.elsewhere import with_other_nodes
from claudemesh.broker.fan_out import PendingFanOut
from claudemesh.broker.links import Link
from claudemesh.broker.policy import Buckets, Limits
from claudemesh.broker.presence import Connected
from claudemesh.broker.store.base import SessionRow
from claudemesh.broker.subscriptions import is_member
from claudemesh.crypto import identity
from claudemesh.crypto.epoch_record import EpochRecord, open_record
from claudemesh.errors import ClaudemeshError, Invalid, LocalError, Refused
from claudemesh.protocol import messages
from claudemesh.protocol.epoch_rules import check_publication, slot_holders
from claudemesh.protocol.limits import AUDIT_ROWS_PER_FRAME, CLOCK_SKEW_MS, MINUTE_MS
from claudemesh.protocol.messages import (
    Append,
    Appended,
    Attest,
    Audit,
    End,
    GetAudit,
    GetCards,
    ListPeers,
    Message,
    Ok,
    Peers,
    Ping,
    Pong,
    Post,
    PublishedEpoch,
    PutCard,
    PutEpoch,
    Send,
    SetStatus,
    Subscribe,
    Sync,
)
from claudemesh.types import ChannelId, MeshId, PeerId, SessionId, UnixMillis

MAX_LISTED_SESSIONS: Final = 2_500
"""A `peers` frame stays below what a peer accepts; the peers that are connected come first."""
STORAGE_RETRY_MS: Final = 5_000
_DETAIL_LENGTH: Final = 128
SLOTS_PER_REQUEST: Final = 100
"""Slots of an epoch that are stored for the price of one more request."""
_LOOKUP_COST: Final = 2
"""Requests that an envelope counts as whose attestation is not in memory."""
_COSTS: Final[dict[type[Message], int]] = {ListPeers: 5, GetCards: 5, GetAudit: 5, Sync: 2, Append: 2}
_encode: Final = msgspec.json.Encoder().encode


class Service:
    """Answers the requests of open links."""

    def __init__(self, core: Core) -> None:
        self._core = core
        limits = core.limits
        self._appends = Buckets(limits.appends_per_minute, MINUTE_MS)
        self._cards = Buckets(1, limits.card_interval_ms, burst=3)
        self._epochs = Buckets(1, limits.epoch_interval_ms)
        self._attestations = Buckets(limits.attestations_per_minute, MINUTE_MS, 2 * limits.attestations_per_minute)

    def cost_ms(self, link: Link, message: Message) -> int:
        """How long this request has to wait; nothing else is read from its link meanwhile."""
        cost = _COSTS.get(type(message), 1)
        if isinstance(message, PutEpoch):
            cost += len(message.slots) // SLOTS_PER_REQUEST
        return link.requests.charge(self._core.clock(), cost)

    async def submit(self, link: Link, mesh: Mesh, message: Send | Post, frame: bytes) -> None:
        """Hand a message to the exchange; waits only for an attestation that is not in memory."""
        known = mesh.attestations.get(message.att)
        if message.rs > mesh.roster.seq and self._core.following is not None:
            await asyncio.sleep(link.requests.charge(self._core.clock(), _LOOKUP_COST) / 1_000)
            try:
                await self._refresh(mesh)
            except (LocalError, Refused) as error:
                link.send(refused(error, envelope=message))
                return
        if known is None:
            await asyncio.sleep(link.requests.charge(self._core.clock(), _LOOKUP_COST) / 1_000)
            try:
                known = await self._core.directory.attestation(mesh, message.att, self._core.clock())
            except LocalError as error:
                link.send(refused(error, envelope=message))
                return
        if isinstance(message, Send):
            self._core.exchange.submit(link, mesh, message, frame, known)
        else:
            self._core.exchange.post(link, mesh, message, frame, known)

    async def answer(self, link: Link, mesh: Mesh, message: messages.PeerMessage) -> None:
        """Answer one request; what goes wrong is answered with `refused`, and nothing of it took effect."""
        rid: int | None = getattr(message, "rid", None)
        try:
            await self._dispatch(link, mesh, message)
        except (Refused, Invalid, LocalError) as error:
            self._core.metrics.count_refusal(refusal_code(error), mesh.id, link.peer)
            link.send(refused(error, rid=rid, envelope=message if isinstance(message, Send | Post) else None))

    async def _dispatch(self, link: Link, mesh: Mesh, message: messages.PeerMessage) -> None:
        match message:
            case Ping():
                self._ping(link, mesh)
            case Append():
                await self._append(link, mesh, message)
            case Sync():
                await self._refresh(mesh)
                frame, _ = await self._core.ordering.page(mesh, message.seq, message.rid)
                link.outlet.write(frame)
            case Attest():
                await self._attest(link, mesh, message)
            case PutEpoch():
                await self._put_epoch(link, mesh, message)
            case Subscribe() if link.is_restricted:
                raise Refused("invalid", "a restricted session decides nothing for its peer")
            case Subscribe():
                await self._subscribe(link, mesh, message)
            case PutCard():
                await self._put_card(link, mesh, message)
            case GetCards():
                await self._get_cards(link, mesh, message)
            case ListPeers():
                await self._list_peers(link, mesh, message)
            case GetAudit():
                await self._get_audit(link, mesh, message)
            case SetStatus():
                self._core.presence.set_status(mesh.id, link.peer, SessionId(message.sess), link.id, message.status)
            case End():
                await self._end(link, mesh, message)
            case _:
                raise Refused("not_supported")

    async def _refresh(self, mesh: Mesh) -> None:
        """Another node may have stored what this one has not seen; alone there is nothing to see."""
        if self._core.following is not None and not await self._core.following.refresh(mesh):
            raise Refused("unknown_mesh")

    def _ping(self, link: Link, mesh: Mesh) -> None:
        head = self._core.ordering.head(mesh)
        new, link.seen_head = head is not link.seen_head, head
        link.send(Pong(sth=head) if new else Pong())

    async def _append(self, link: Link, mesh: Mesh, message: Append) -> None:
        # More than one entry costs a copy of the roster.
        cost = 1 if len(message.entries) == 1 else 5
        wait_ms = self._appends.take(mesh.id + link.peer, self._core.clock(), cost)
        if wait_ms:
            raise Refused("rate_limited", retry_after_ms=wait_ms)
        seq = await self._core.ordering.append(mesh, message.entries, "member", link.peer)
        link.send(Appended(rid=message.rid, seq=seq, sth=self._core.ordering.head(mesh)))

    async def _attest(self, link: Link, mesh: Mesh, message: Attest) -> None:
        now = self._core.clock()
        wait_ms = self._attestations.take(mesh.id + link.peer, now)
        if wait_ms:
            raise Refused("rate_limited", retry_after_ms=wait_ms)
        attestation = identity.open_attestation(message.st)
        if attestation.mesh != mesh.id or attestation.member != link.peer:
            raise Refused("invalid", "the attestation is of another peer")
        if not attestation.issued_at - CLOCK_SKEW_MS <= now <= attestation.expires_at:
            raise Refused("invalid", "the attestation is not valid now; check the clocks")
        sessions = self._core.presence.sessions_of(mesh.id, link.peer, link.id)
        known_session = any(session == attestation.session for session, _ in sessions)
        if message.live and not known_session and len(sessions) >= self._core.limits.sessions_per_link:
            raise Refused("limit", "sessions_per_link")
        known = KnownAttestation(attestation, encode_statement(message.st))
        await self._core.store.put_attestation(
            mesh.id,
            link.peer,
            attestation.digest,
            attestation.expires_at,
            known.statement,
            session=attestation.session,
        )
        mesh.remember(known, now)
        if message.live:
            await self._announce(link, mesh, message, attestation.session, now)
        link.send(Ok(rid=message.rid))

    async def _announce(self, link: Link, mesh: Mesh, message: Attest, session: SessionId, now: UnixMillis) -> None:
        connected = Connected(link.id, message.st, message.status, message.sid, now)
        self._core.presence.announce(mesh.id, link.peer, session, connected)
        row = SessionRow(
            mesh=mesh.id,
            peer=link.peer,
            session=session,
            link=link.id,
            connected_at=now,
            last_seen=now,
            status=message.status,
            sid=message.sid,
        )
        await self._core.store.set_presence([row])

    async def _put_epoch(self, link: Link, mesh: Mesh, message: PutEpoch) -> None:
        record = open_record(message.st)
        key = mesh.id + record.scope + link.peer
        wait_ms = self._epochs.wait_ms(key, self._core.clock())
        if wait_ms:
            raise Refused("rate_limited", retry_after_ms=wait_ms)
        if record.roster_seq > mesh.roster.seq:
            await self._refresh(mesh)
        known = await self._core.directory.attestation(mesh, message.att, self._core.clock())
        now = self._core.clock()
        objection = object_to_session(mesh, link.peer, known, "chan", self._core.id, now)
        if known is None or objection is not None:
            raise Refused(*(objection or ("invalid", "")))
        check_publication(record, known.attestation, message.slots, mesh.roster)
        self._epochs.take(key, now)
        await self._core.exchange.publish(_pending_epoch(link, mesh, record, message, known, now, self._core.limits))
        link.send(Ok(rid=message.rid))

    async def _subscribe(self, link: Link, mesh: Mesh, message: Subscribe) -> None:
        core, channel = self._core, ChannelId(message.chan)
        if not mesh.serves(core.id):
            raise Refused("moved")
        if not is_member(mesh.roster, channel, link.peer):
            raise Refused("invalid", "the peer is not in the channel")
        limit = core.limits.subscriptions_per_peer
        wanted = mesh.subscriptions.decide(mesh.roster, channel, link.peer, message.on, limit)
        await core.store.subscribe(mesh.id, channel, link.peer, wanted)
        mesh.subscriptions.set(channel, link.peer, wanted)
        core.hints.moved(mesh.id)
        link.send(Ok(rid=message.rid))

    async def _put_card(self, link: Link, mesh: Mesh, message: PutCard) -> None:
        wait_ms = self._cards.take(mesh.id + link.peer, self._core.clock())
        if wait_ms:
            raise Refused("rate_limited", retry_after_ms=wait_ms)
        card = identity.open_card(message.st)
        member = mesh.roster.member(link.peer)
        if card.mesh != mesh.id or card.member != link.peer:
            raise Refused("invalid", "the card is of another peer")
        if member is None or card.number < member.card_floor:
            raise Refused("invalid", "the card is older than the roster allows")
        raw = encode_statement(message.st)
        if not await self._core.store.put_card(mesh.id, link.peer, card.number, raw):
            kept = await self._core.store.cards(mesh.id, [link.peer])
            if kept.get(link.peer) != raw:
                raise Refused("invalid", "a card with this number or a higher one is published")
        link.send(Ok(rid=message.rid))

    async def _get_cards(self, link: Link, mesh: Mesh, message: GetCards) -> None:
        members = [PeerId(member) for member in dict.fromkeys(message.members) if is_key(member)]
        cards = await self._core.store.cards(mesh.id, members)
        link.outlet.write(b'{"t":"cards","rid":%d,"cards":[%b]}' % (message.rid, b",".join(cards.values())))

    async def _list_peers(self, link: Link, mesh: Mesh, message: ListPeers) -> None:
        last_seen = await self._core.store.last_seen(mesh.id)
        listing = self._core.presence.listing(mesh.id, last_seen)
        if not self._core.is_alone:
            listing = await with_other_nodes(self._core.store, mesh, listing)
        active = [peer for peer in listing if mesh.roster.is_active(peer.member)]
        active.sort(key=lambda peer: (not peer.sessions, -peer.seen))
        link.send(Peers(rid=message.rid, peers=_within(active)))

    async def _get_audit(self, link: Link, mesh: Mesh, message: GetAudit) -> None:
        n, head = await self._core.store.audit_head(mesh.id)
        rows = await self._core.store.audit_rows(mesh.id, message.n, AUDIT_ROWS_PER_FRAME)
        rows = rows[: max(0, n - message.n)]
        more = message.n + len(rows) < n
        cp = None if more else audit.checkpoint(mesh.id, n, head, self._core.clock(), self._core.key)
        link.send(Audit(rid=message.rid, n=message.n, rows=rows, more=more, cp=cp))

    async def _end(self, link: Link, mesh: Mesh, message: End) -> None:
        session = SessionId(message.sess)
        if self._core.presence.end(mesh.id, link.peer, session, link.id):
            await self._core.store.end_session(MeshId(mesh.id), link.peer, session)


def _pending_epoch(
    link: Link,
    mesh: Mesh,
    record: EpochRecord,
    message: PutEpoch,
    known: KnownAttestation,
    now: UnixMillis,
    limits: Limits,
) -> PendingFanOut:
    payload = _encode(PublishedEpoch(message.st, message.att))
    holders = slot_holders(mesh.roster, record.scope, record.roster_seq)
    return PendingFanOut(
        link=link,
        mesh=mesh,
        kind="epoch",
        channel=record.scope,
        id=record.id,
        priority=None,
        roster_seq=record.roster_seq,
        attestation=known,
        payload=payload,
        size=len(payload) + len(message.slots[0]),
        expires_at=UnixMillis(now + limits.queue_lifetime_ms),
        slots=dict(zip(holders, message.slots, strict=True)),
    )


def refused(error: ClaudemeshError, *, rid: int | None = None, envelope: Send | Post | None = None) -> messages.Refused:
    """The frame for an error: its code and detail, never a traceback."""
    local = isinstance(error, LocalError)  # what exactly is wrong here is for the log, not for the wire
    detail = "" if local else error.detail if isinstance(error, Refused) else f"{error.code} {error.detail}"
    return messages.Refused(
        code=refusal_code(error),
        rid=rid,
        id=None if envelope is None else envelope.id,
        to=envelope.to if isinstance(envelope, Send) else None,
        chan=envelope.chan if isinstance(envelope, Post) else None,
        detail=detail.strip()[:_DETAIL_LENGTH],
        retry_after_ms=STORAGE_RETRY_MS if local else error.retry_after_ms,
    )


def refusal_code(error: ClaudemeshError) -> str:
    """The code of a `refused` or `closing` frame: one of `errors.Refused`."""
    if isinstance(error, LocalError):
        return "storage"
    return error.code if isinstance(error, Refused) else "invalid"


def _within(peers: Sequence[messages.PeerPresence]) -> list[messages.PeerPresence]:
    listed, sessions = [], 0
    for peer in peers:
        sessions += max(1, len(peer.sessions))
        if sessions > MAX_LISTED_SESSIONS:
            break
        listed.append(peer)
    return listed
