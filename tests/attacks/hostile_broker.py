"""A broker that speaks the real wire and lies on request (docs/spec/wire.md).

Left alone it is honest: it orders entries by compare-and-swap, stores and delivers envelopes, signs heads,
accepts and acknowledges. Every lie is one of three kinds:

* the state that it shows: `held.views` (fork, rollback, withholding), `View.force` (forged entries),
  `held.cards_shown_to`, `hold_mail` with `push` (drop, reorder, replay, misdirect, alter), `held.audit`;
* `lies`: hooks on each frame that leaves or arrives, and on the challenge;
* `key`: the key with which it signs, which may change between two frames.
"""

import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import msgspec
from aiohttp import WSMsgType, web

from claudemesh.crypto import primitives, statements
from claudemesh.crypto.primitives import SigningKey
from claudemesh.crypto.statements import Statement
from claudemesh.errors import ClaudemeshError, Invalid
from claudemesh.protocol import codec, messages
from claudemesh.protocol.audit_rows import size_class
from claudemesh.protocol.link import ClaimReceived, HelloReceived, LinkState
from claudemesh.protocol.messages import Delivery, PeerMessage
from claudemesh.protocol.roster import Entry
from claudemesh.types import MeshId, PeerId
from tests.attacks.clock import Clock, eventually
from tests.attacks.hostile_link import HostileLink, Lies
from tests.attacks.hostile_store import HeldMesh, Row, View


class HostileBroker:
    """The server. `async with HostileBroker.listening() as broker:` and dial `broker.url`."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.key: SigningKey = primitives.signing_key(os.urandom(32))
        self.lies = Lies()
        self.meshes: dict[MeshId, HeldMesh] = {}
        self.links: list[HostileLink] = []
        self.hold_mail = False
        """Accept envelopes but deliver none by oneself."""
        self.refuse_appends = False
        self.checks_appends = True
        self.announces = True
        self.received: list[tuple[HostileLink, PeerMessage]] = []
        self.url = ""
        self._runner: web.AppRunner | None = None

    @classmethod
    @asynccontextmanager
    async def listening(cls, clock: Clock | None = None) -> AsyncIterator[Self]:
        """A broker on a loopback port of its own."""
        broker = cls(clock)
        application = web.Application()
        application.router.add_get("/ws", broker._serve)
        broker._runner = web.AppRunner(application, shutdown_timeout=0.2, access_log=None)
        await broker._runner.setup()
        site = web.TCPSite(broker._runner, "127.0.0.1", 0)
        await site.start()
        host, port = broker._runner.addresses[0][:2]
        broker.url = f"ws://{host}:{port}/ws"
        try:
            yield broker
        finally:
            for link in broker.links:
                await link.close()
            await broker._runner.cleanup()

    # What a test does with it

    def hold(self, entries: Sequence[Entry]) -> HeldMesh:
        """Hold a mesh without having been told of it over the wire."""
        held = HeldMesh(View(entries))
        self.meshes[held.main.mesh] = held
        return held

    def link_of(self, peer: PeerId) -> HostileLink | None:
        """The newest open link of a peer."""
        return next((link for link in reversed(self.links) if link.peer == peer and link.is_open), None)

    async def connected(self, peer: PeerId) -> HostileLink:
        """Wait for an open link of `peer`."""
        link = await eventually(lambda: self.link_of(peer), f"{peer[:8]} opens a link")
        assert isinstance(link, HostileLink)
        return link

    def heard(self, kind: type[PeerMessage], peer: PeerId | None = None) -> list[Any]:
        """Every frame of one kind that arrived, from one peer or from all."""
        return [frame for link, frame in self.received if isinstance(frame, kind) and peer in (None, link.peer)]

    async def announce(self, held: HeldMesh) -> None:
        """Push each open link of a mesh the whole history that it is shown, with a head signed for it."""
        for link in [link for link in self.links if link.held is held and link.is_open]:
            await self.announce_to(link)

    async def announce_to(self, link: HostileLink, from_seq: int = 0) -> None:
        view = link.view
        sth = view.signed_head(self.key, self.clock())
        await link.emit(messages.Log(seq=from_seq, entries=view.entries[from_seq:], sth=sth))

    async def push(self, to: PeerId, *rows: Row | bytes, attestations: Sequence[Statement] | None = None) -> list[int]:
        """Deliver rows or bare envelopes to a peer, whoever they were written to; returns their numbers.

        Args:
            attestations: Shown with them; None shows those that the envelopes name.
        """
        link = await self.connected(to)
        assert link.held is not None
        ready = [row if isinstance(row, Row) else link.held.mail.add(to, self.clock(), envelope=row) for row in rows]
        shown = self._attestations_of(link.held, ready) if attestations is None else list(attestations)
        deliveries = [
            Delivery(
                q=row.q, at=row.at, e=msgspec.Raw(row.envelope) if row.envelope else messages.NO_ENVELOPE, st=row.notice
            )
            for row in ready
        ]
        await link.emit(messages.Push(d=deliveries, atts=shown))
        return [row.q for row in ready]

    async def acknowledged(self, peer: PeerId, *numbers: int) -> None:
        """Wait until `peer` has said that it is done with these deliveries, whatever it made of them."""

        def acknowledged() -> bool:
            acks = {q for ack in self.heard(messages.Ack, peer) for q in ack.q}
            cursors = {q for hello in self.heard(messages.Hello, peer) for q in hello.cursor}
            return set(numbers) <= acks | cursors

        await eventually(acknowledged, f"{peer[:8]} acknowledges {numbers}")

    async def drop_links(self, peer: PeerId | None = None) -> None:
        """Cut connections, so that peers dial again."""
        for link in list(self.links):
            if peer in (None, link.peer):
                await link.close()

    # The honest wire

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=64 << 20)
        await socket.prepare(request)
        link = HostileLink(self, socket)
        self.links.append(link)
        foreign = self.lies.challenge(link)
        own = codec.decode_broker_message(link.protocol.challenge())
        await link.emit(messages.Challenge(st=foreign) if foreign else own)
        async for frame in socket:
            if frame.type is not WSMsgType.TEXT:
                break
            link.heard.append(frame.data)
            try:
                await self._receive(link, frame.data)
            except ClaudemeshError as error:
                await link.emit(messages.Closing(code=error.code, detail=error.detail[:128]))
                break
        await link.close()
        return socket

    async def _receive(self, link: HostileLink, data: str) -> None:
        raw = codec.decode_peer_message(data)
        self.received.append((link, raw))
        swallowed = self.lies.incoming(link, raw)
        if isinstance(swallowed, bool):
            if swallowed:
                return
        elif await swallowed:
            return
        event = link.protocol.receive(data, self.clock())
        match event:
            case HelloReceived():
                await self._hello(link, event)
            case ClaimReceived():
                await self._claim(link, event)
            case _:
                await self._request(link, event)

    async def _hello(self, link: HostileLink, event: HelloReceived) -> None:
        hello = event.hello
        held = self.meshes.get(hello.mesh)
        if held is None:
            await self._refuse_link(link, "unknown_mesh")
            return
        link.held, link.peer = held, hello.member
        if not link.view.roster.is_active(hello.member):
            await self._refuse_link(link, "unknown_peer")
            return
        held.attestations[event.attestation.digest] = event.message.att
        held.mail.delete(hello.member, event.message.cursor)
        audit = held.audit
        sth = link.view.signed_head(self.key, self.clock())
        queued = len(held.mail.of(hello.member))
        accepted = link.protocol.accept_hello(len(audit.rows), audit.head, sth, queued, self.clock())
        await link.emit(codec.decode_broker_message(accepted))
        await self.announce_to(link, min(hello.roster_seq + 1, link.view.seq + 1))
        await self._deliver(link)

    async def _claim(self, link: HostileLink, event: ClaimReceived) -> None:
        held = next((held for mesh, held in self.meshes.items() if mesh.startswith(event.mesh_prefix)), None)
        if held is None:
            await self._refuse_link(link, "unknown_mesh")
            return
        link.held = held
        state = held.main.invite_state(event.invite, self.clock())
        claimed = messages.Claimed(
            mesh=held.main.mesh, seq=held.main.seq, state=state if state != "unknown" else "open"
        )
        await link.emit(codec.decode_broker_message(link.protocol.accept_claim(claimed)))

    async def _refuse_link(self, link: HostileLink, code: str) -> None:
        await link.emit(messages.Refused(code=code))
        await link.close()

    async def _request(self, link: HostileLink, event: PeerMessage) -> None:
        match event:
            case messages.Sync():
                sth = link.view.signed_head(self.key, self.clock())
                entries = link.view.entries[event.seq :]
                await link.emit(messages.Log(rid=event.rid, seq=event.seq, entries=entries, sth=sth))
            case messages.Append():
                await self._append(link, event)
            case messages.Send():
                await self._send(link, event)
            case messages.Ack():
                assert link.held is not None
                assert link.peer is not None
                link.held.mail.delete(link.peer, event.q)
            case messages.Ping():
                await link.emit(messages.Pong())
            case messages.End() | messages.SetStatus():
                pass
            case _:
                await self._lookup(link, event)

    async def _append(self, link: HostileLink, event: messages.Append) -> None:
        if link.protocol.state in (LinkState.CHALLENGED, LinkState.UPLOADING):
            await self._upload(link, event)
            return
        view = link.view
        code = self._refusal_of(view, event.entries)
        if code is not None:
            await link.emit(messages.Refused(rid=event.rid, code=code[0], detail=code[1]))
            return
        if self.checks_appends:
            for entry in event.entries:
                view.append(entry)
        else:
            view.force(*event.entries)
        sth = view.signed_head(self.key, self.clock())
        await link.emit(messages.Appended(rid=event.rid, seq=view.seq, sth=sth))
        if self.announces:
            first = view.seq + 1 - len(event.entries)
            for other in [other for other in self.links if other.is_open and other.held is link.held]:
                if other is not link and other.view is view:
                    await self.announce_to(other, first)

    def _refusal_of(self, view: View, entries: Sequence[Entry]) -> tuple[str, str] | None:
        if self.refuse_appends:
            return "invalid", "denied"
        if statements.decode(entries[0].b.encode())["prev"] != view.head:
            return "cas", ""
        if not self.checks_appends:
            return None
        trial = view.copy()
        try:
            for entry in entries:
                trial.append(entry)
        except Invalid as error:
            return "invalid", f"{error.code} {error.detail}"[:128]
        return None

    async def _upload(self, link: HostileLink, event: messages.Append) -> None:
        entries = list(event.entries)
        if link.uploaded is None:
            mesh = View(entries[:1]).mesh
            known = self.meshes.get(mesh)
            link.uploaded = known.main if known is not None else self.hold(entries[:1]).main
            entries = entries[1:]
            link.protocol.accept_genesis()
        for entry in entries:
            link.uploaded.append(entry)
        served = link.uploaded.roster.broker == self.key.public
        sth = link.uploaded.signed_head(self.key, self.clock()) if served else None
        await link.emit(messages.Appended(rid=event.rid, seq=link.uploaded.seq, sth=sth))

    async def _send(self, link: HostileLink, event: messages.Send) -> None:
        assert link.held is not None
        to, raw = PeerId(event.to), link.heard[-1].encode()
        if not link.view.roster.is_active(to):
            await link.emit(messages.Refused(code="unknown_peer", id=event.id, to=event.to))
            return
        at = self.clock()
        number, row_hash = link.held.audit.add(
            "send", link.peer or "", to, at, size_class=size_class(len(event.ct)), priority=event.prio
        )
        link.held.mail.add(to, at, envelope=raw)
        body = {
            "v": 1,
            "at": at,
            "mesh": link.held.main.mesh,
            "r": [{"id": event.id, "to": event.to, "n": number, "h": row_hash}],
        }
        await link.emit(messages.Accepted(st=statements.sign_statement(body, "accept", self.key)))
        receiver = self.link_of(to)
        if receiver is not None:
            await self._deliver(receiver)

    async def _deliver(self, link: HostileLink) -> None:
        if self.hold_mail or link.held is None or link.peer is None:
            return
        waiting = [row for row in link.held.mail.of(link.peer) if row.q not in link.leased]
        if waiting:
            link.leased.update(row.q for row in waiting)
            await self.push(link.peer, *waiting)

    async def _lookup(self, link: HostileLink, event: PeerMessage) -> None:
        held, reader = link.held, link.peer
        assert held is not None
        assert reader is not None
        match event:
            case messages.Attest():
                held.attestations[statements.statement_digest(event.st, "att")] = event.st
                await link.emit(messages.Ok(rid=event.rid))
            case messages.PutCard():
                held.cards[reader] = event.st
                await link.emit(messages.Ok(rid=event.rid))
            case messages.GetCards():
                cards = [held.card_for(reader, PeerId(member)) for member in event.members]
                await link.emit(messages.Cards(rid=event.rid, cards=[card for card in cards if card is not None]))
            case messages.ListPeers():
                connected = {other.peer for other in self.links if other.is_open and other.held is held and other.peer}
                known = [messages.PeerPresence(member=peer, seen=self.clock()) for peer in sorted(connected)]
                await link.emit(messages.Peers(rid=event.rid, peers=known))
            case messages.GetAudit():
                checkpoint = held.audit.checkpoint(self.key, self.clock())
                await link.emit(
                    messages.Audit(rid=event.rid, n=event.n, rows=held.audit.rows[event.n :], cp=checkpoint)
                )
            case _:
                rid = getattr(event, "rid", None)
                await link.emit(messages.Refused(rid=rid, code="not_supported", detail="no channels here"))

    @staticmethod
    def _attestations_of(held: HeldMesh, rows: Iterable[Row]) -> list[Statement]:
        named = dict.fromkeys(row.send.att for row in rows if row.envelope)
        return [held.attestations[name] for name in named if name in held.attestations]
