"""Drives the broker's side of the protocol, one task per link (docs/spec/broker.md §2)."""

import asyncio
import math
import random
import secrets
from collections.abc import Callable
from typing import Final

from claudemesh.broker.commits import refusal_of
from claudemesh.broker.config import Origins
from claudemesh.broker.core import Core
from claudemesh.broker.directory import Mesh
from claudemesh.broker.http import Http
from claudemesh.broker.links import Link
from claudemesh.broker.members import Members
from claudemesh.broker.service import Service, refusal_code, refused
from claudemesh.broker.strangers import Stranger, Uploads
from claudemesh.errors import ClaudemeshError, Invalid, LocalError, Malformed, Refused
from claudemesh.protocol.codec import encode_message
from claudemesh.protocol.link import BrokerLink, ClaimReceived, HelloReceived
from claudemesh.protocol.messages import Ack, Append, Closing, PeerMessage, Post, PutEpoch, Send
from claudemesh.protocol.messages import Refused as RefusedMessage
from claudemesh.transport.frames import (
    INTERNAL_ERROR,
    POLICY_VIOLATION,
    SERVICE_RESTART,
    TOO_BIG,
    TRY_AGAIN_LATER,
    CloseCode,
)
from claudemesh.transport.listener import Answer, Hooks, Stream

RETRY_AFTER_DRAIN_MS: Final = (200, 3_000)
"""Peers come back spread over this time, not all at once."""
_SLOW_READER_POLL_S: Final = 0.05
_REFUSALS_IN_A_ROW: Final = 1_000
_REFUSAL_DELAY_S: Final = 0.02
_DETAIL_LENGTH: Final = 128


class Server(Hooks):
    """Serves connections: strangers until their handshake, then members."""

    def __init__(self, core: Core, members: Members, http: Http, origins: Callable[[], Origins]) -> None:
        self._core = core
        self._members = members
        self._http = http
        self._origins = origins
        self._service = Service(core)
        self._uploads = Uploads(core.limits.uploads, core.limits.uploads_per_address)
        self._open: dict[Link, Stream] = {}
        self._waiting: dict[BrokerLink, Stream] = {}
        self.draining = False

    async def serve(self, stream: Stream) -> None:
        """Serve one connection; whatever goes wrong ends this link and no other."""
        core = self._core
        origin = self._origins().of_request(stream.host, stream.is_unix)
        proto = BrokerLink(core.key, origin, secrets.token_bytes(32), core.clock())
        self._waiting[proto] = stream
        try:
            stream.write(proto.challenge())
            opened = await self._handshake(stream, proto)
            if opened is not None:
                self._waiting.pop(proto, None)
                await self._serve_member(stream, proto, *opened)
        except Exception as error:  # noqa: BLE001  # a defect must not take other links with it
            core.log.failure("link_failed", error)
            _end(stream, Closing(code="invalid"), INTERNAL_ERROR)
        finally:
            self._waiting.pop(proto, None)

    async def answer(self, path: str) -> Answer:
        """Answer a plain GET."""
        return await self._http.answer(path)

    def refuse_s(self, address: str) -> int:
        """How long an address has to wait whose handshakes failed too often."""
        if self.draining:
            return 1
        return math.ceil(self._core.addresses.failures.wait_ms(address, self._core.clock()) / 1_000)

    def misbehaved(self, address: str) -> None:
        self._core.metrics.handshakes_failed += 1
        self._core.addresses.failures.charge(address, self._core.clock())

    def cut(self) -> None:
        self._core.metrics.links_cut += 1

    def refused(self) -> None:
        self._core.metrics.links_refused += 1

    def sweep(self) -> None:
        """Once a second: end links that were silent for a whole presence lease."""
        now, lease_ms = self._core.clock(), self._core.limits.presence_lease_ms
        for link, stream in list(self._open.items()):
            if now - link.heard_at >= lease_ms and not link.closed:
                link.silent = True
                link.closed = True
                stream.hang_up()

    def drain(self) -> None:
        """Tell every link that this broker is stopping and when to come back."""
        for link in list(self._open):
            retry_after_ms = random.randint(*RETRY_AFTER_DRAIN_MS)  # spreads load, guards nothing
            link.close(Closing(code="draining", retry_after_ms=retry_after_ms), SERVICE_RESTART, "draining")
        for stream in list(self._waiting.values()):
            _end(stream, Closing(code="draining", retry_after_ms=RETRY_AFTER_DRAIN_MS[0]), SERVICE_RESTART)

    async def _handshake(self, stream: Stream, proto: BrokerLink) -> tuple[Mesh, Link] | None:
        """Read frames of a stranger until its link is a member's; None when it has ended before."""
        stranger = Stranger(self._core, self._uploads, stream, proto)
        rid: int | None = None
        try:
            while (frame := await stream.receive()) is not None:
                event = proto.receive(frame, self._core.clock())
                if isinstance(event, HelloReceived):
                    # What is left to do is ours: to load a long roster may take longer than a stranger may to speak.
                    stream.extend(self._core.limits.presence_lease_ms / 1_000)
                    return await self._members.open(event, proto, stream)
                rid = event.rid if isinstance(event, Append) else None
                await stranger.answer(event)
                await asyncio.sleep(stranger.wait_ms() / 1_000)
        except (Invalid, Refused, LocalError) as error:
            self._refuse(stream, error, rid)
        finally:
            stranger.end()
        return None

    def _refuse(self, stream: Stream, error: ClaudemeshError, rid: int | None) -> None:
        """End a handshake and count it against its address, unless the fault is ours."""
        self._core.metrics.count_refusal(refusal_code(error))
        if not isinstance(error, LocalError) and error.code not in ("rate_limited", "draining"):
            self.misbehaved(stream.address)
        violation = isinstance(error, Invalid)
        stream.write(encode_message(_closing(error) if violation else refused(error, rid=rid)))
        stream.close(TRY_AGAIN_LATER if error.retryable else _close_code(error))

    async def _serve_member(self, stream: Stream, proto: BrokerLink, mesh: Mesh, link: Link) -> None:
        self._open[link] = stream
        try:
            await self._read_member(stream, proto, mesh, link)
        finally:
            del self._open[link]
            await self._members.ended(mesh, link, link.silent)

    async def _read_member(self, stream: Stream, proto: BrokerLink, mesh: Mesh, link: Link) -> None:
        limits = self._core.limits
        refusals = 0
        while (frame := await stream.receive()) is not None and not link.closed:
            try:
                now = self._core.clock()
                message = proto.receive(frame, now)
                link.heard_at = now
                if isinstance(message, Send | Post):
                    refusals = await self._submit(link, mesh, message, frame, refusals)
                elif isinstance(message, Ack):
                    self._core.exchange.acknowledge(link, mesh, message.q)
                elif not isinstance(message, HelloReceived | ClaimReceived):
                    await self._request(link, mesh, message)
            except Invalid as error:
                if not self._tolerate(link, error):
                    return
            while stream.buffered() > limits.buffered_bytes and not link.closed:  # noqa: ASYNC110
                await asyncio.sleep(_SLOW_READER_POLL_S)  # reads nothing more from who does not read

    async def _submit(self, link: Link, mesh: Mesh, message: Send | Post, frame: bytes, refusals: int) -> int:
        """Submit; a link that is refused a thousand times in a row is read more slowly."""
        if self.draining:
            link.send(refusal_of(message, "draining"))
            return refusals
        before = link.unanswered
        await self._service.submit(link, mesh, message, frame)
        if link.unanswered > before:
            return 0
        if refusals >= _REFUSALS_IN_A_ROW:
            await asyncio.sleep(_REFUSAL_DELAY_S)
        return refusals + 1

    async def _request(self, link: Link, mesh: Mesh, message: PeerMessage) -> None:
        """Answer one request, after a pause when there were many."""
        if self.draining and isinstance(message, PutEpoch):
            link.send(RefusedMessage(code="draining", rid=message.rid))
            return
        wait_ms = self._service.cost_ms(link, message)
        if wait_ms:
            await asyncio.sleep(wait_ms / 1_000)
        await self._service.answer(link, mesh, message)

    def _tolerate(self, link: Link, error: Invalid) -> bool:
        """Refuse a frame of a type that this version does not know; any other violation ends the link."""
        self._core.metrics.frames_malformed += 1
        if isinstance(error, Malformed) and error.code == "unknown_type":
            link.send(RefusedMessage(code="not_supported", detail="unknown_type"))
            return True
        link.close(_closing(error), _close_code(error), audit_reason="invalid")
        return False


def _closing(violation: ClaudemeshError) -> Closing:
    return Closing(code=violation.code, detail=violation.detail[:_DETAIL_LENGTH])


def _close_code(error: ClaudemeshError) -> CloseCode:
    return TOO_BIG if error.code == "too_large" else POLICY_VIOLATION


def _end(stream: Stream, closing: Closing, code: CloseCode) -> None:
    stream.write(encode_message(closing))
    stream.close(code)
