"""A session that was handed out: it sends what its capabilities allow, and holds no key of its peer (docs/sdk.md §10).

It verifies the roster and every card like any peer, keeps its counters in its file, and returns when the broker has
accepted a message. It receives nothing: replies go to its peer, whose daemon has them.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from claudemesh import transport
from claudemesh.crypto import identity
from claudemesh.crypto.epoch_record import open_record
from claudemesh.crypto.identity import Card
from claudemesh.errors import AddressError, EnvelopeRefused, Invalid, LocalError, Refused, RosterConflict, Unreachable
from claudemesh.peer import addressing, contents, sealing
from claudemesh.peer.addressing import KnownPeer
from claudemesh.peer.channel_names import GENERAL_NAME
from claudemesh.peer.events import Hub
from claudemesh.peer.journal import Journal
from claudemesh.peer.journal.outbox import RANKS, OutboxRow
from claudemesh.peer.journal.posts import PostRow
from claudemesh.peer.line import Connect, Line, dial
from claudemesh.peer.membership import Membership
from claudemesh.peer.post_sealing import seal_post
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.sealing import Destination, Sender, seal_row
from claudemesh.peer.session import Session
from claudemesh.peer.session_bundle import BundleFile, KeptEpoch
from claudemesh.peer.settling import open_acceptance
from claudemesh.peer.views import Submitted
from claudemesh.protocol import epochs, limits
from claudemesh.protocol.delivery import RESEAL_CODES, Stage, Witness
from claudemesh.protocol.epoch_rules import slot_holders
from claudemesh.protocol.epochs import EpochBook, HeldEpoch
from claudemesh.protocol.link import Member, refusal
from claudemesh.protocol.messages import Accepted, BrokerMessage, Cards, GetCards, Ok, PutEpoch
from claudemesh.protocol.messages import Refused as RefusedMessage
from claudemesh.protocol.roster import GENERAL
from claudemesh.types import (
    BoxId,
    BrokerId,
    ChannelId,
    Digest,
    Intent,
    MessageId,
    PeerId,
    Priority,
    SessionId,
    UnixMillis,
    UserId,
)

MAX_ATTEMPTS: Final = 4

Stream = PeerId | ChannelId


class RestrictedSession:
    """One session over its file; made by `Peer.open_session_bundle`."""

    def __init__(self, file: BundleFile, membership: Membership, line: Line, runtime: Runtime) -> None:
        bundle = file.bundle
        self._file = file
        self._membership = membership
        self._line = line
        self._runtime = runtime
        attestation = bundle.open_attestation()
        self._session = Session(bundle.keys(), bundle.label, "", (), bundle.attestation, attestation)
        self._cards: dict[PeerId, Card] = {}
        self._answers: dict[tuple[str, str], asyncio.Future[None]] = {}

    @property
    def id(self) -> SessionId:
        return self._session.id

    @property
    def label(self) -> str:
        return self._session.label

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What the session's peer allows it."""
        return self._session.attestation.capabilities

    @property
    def expires_at(self) -> UnixMillis:
        return self._session.attestation.expires_at

    @property
    def alias(self) -> str:
        """What the peer calls the mesh."""
        return self._file.bundle.alias

    def address_of(self, peer: PeerId) -> str:
        """What a peer was called when the session was handed out; else the beginning of its key."""
        known = next((one for one in self._known_peers() if one.id == peer), None)
        return known.address if known is not None else peer[:16]

    async def send(
        self,
        to: str,
        text: str,
        *,
        priority: Priority = "next",
        reply_to: MessageId | None = None,
        expires_in_ms: int | None = None,
        intent: Intent | None = None,
    ) -> Submitted:
        """Send to a peer, a user or a channel, and wait until the broker has accepted it.

        Args:
            to: An address, by the names that were known when the session was handed out, or the beginning of a key.

        Raises:
            EnvelopeRefused: `cap`; the session may not. Nothing was sent.
            AddressError: Nothing was sent.
            Refused: The broker or the rules said no; of several recipients those before have it.
            Unreachable: Whether the broker has it is unknown.
        """
        body = text.encode()
        sealing.check_body(body)
        now = self._runtime.now()
        message_id = MessageId(self._runtime.entropy(16).hex())
        expires_at = UnixMillis(now + expires_in_ms) if expires_in_ms else None
        # What it answers is not here, so that its place in the conversation is not known any better.
        root, hop = (reply_to, 1) if reply_to is not None else (None, None)
        if to.startswith(("#", "@")):
            self._require("chan")
            channel = self._channel(to)
            post = PostRow(
                0, message_id, channel, self.id, contents.TEXT, body, RANKS[priority], intent, reply_to, None,
                expires_at, now, "queued", None, None, None, None, None, root, hop, Stage.QUEUED, Witness.SENDER,
            )  # fmt: skip
            await self._post(post)
            return Submitted(message_id, (), Stage.ACCEPTED)
        self._require("dm")
        target = addressing.resolve(to, self._known_peers(), {}, PeerId(self._file.bundle.member))
        for peer in target.peers:
            row = OutboxRow(
                0, message_id, peer, None, self.id, contents.TEXT, body, RANKS[priority], intent, reply_to, None,
                expires_at, now, "queued", False, None, None, None, root, hop, Stage.QUEUED, Witness.SENDER,
            )  # fmt: skip
            await self._send(row)
        return Submitted(message_id, target.peers, Stage.ACCEPTED)

    def handle(self, message: BrokerMessage) -> None:
        """Take a frame that answers no request."""
        match message:
            case Accepted(st=statement):
                answer = open_acceptance(statement, self._membership.mesh, self._line.broker)
                for row in answer.body["r"]:
                    self._settle((row["id"], row.get("to") or row["chan"]), None)
            case RefusedMessage(id=str() as message_id):
                self._settle((message_id, str(message.to or message.chan)), refusal(message))
            case _:
                pass

    def fail(self) -> None:
        """The link is lost: nobody will answer."""
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Unreachable("link_lost"))

    # Sending

    async def _send(self, row: OutboxRow) -> None:
        for attempt in range(MAX_ATTEMPTS):
            await self._look_up([row.peer])
            to = Destination(self._box_of(row.peer))
            counter = self._next_counter(row.peer)
            frame = seal_row(row, self._sender(), self._session, to, counter, self._nonce(), self._runtime.now())
            if await self._submit((row.message_id, row.peer), frame, attempt):
                return

    async def _post(self, row: PostRow) -> None:
        for attempt in range(MAX_ATTEMPTS):
            epoch = await self._epoch_of(self._membership.roster.scope_of(row.channel))
            counter = self._next_counter(row.channel)
            frame = seal_post(row, self._sender(), self._session, epoch, counter, self._nonce(), self._runtime.now())
            if await self._submit((row.message_id, row.channel), frame, attempt):
                return

    async def _submit(self, key: tuple[str, str], frame: bytes, attempt: int) -> bool:
        """Transmit until there is an answer; False when it has to be sealed anew."""
        for again in range(MAX_ATTEMPTS):
            try:
                await self._transmit(key, frame)
            except Refused as error:
                if error.code == "rate_limited" and again < MAX_ATTEMPTS - 1:
                    await asyncio.sleep((error.retry_after_ms or limits.SECOND_MS) / 1000)
                    continue
                if error.code not in RESEAL_CODES or attempt == MAX_ATTEMPTS - 1:
                    raise
                self._cards.clear()
                await self._membership.catch_up(self._line)
                return False
            else:
                break
        return True

    async def _transmit(self, key: tuple[str, str], frame: bytes) -> None:
        self._answers[key] = answer = asyncio.get_running_loop().create_future()
        try:
            await self._line.post_frame(frame)
            async with asyncio.timeout(self._runtime.tempo.request_timeout_ms / 1000):
                await answer
        except TimeoutError as error:
            raise Unreachable("timeout", "the broker did not answer") from error
        finally:
            del self._answers[key]

    def _settle(self, key: tuple[str, str], error: Exception | None) -> None:
        answer = self._answers.get(key)
        if answer is None or answer.done():
            return
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)

    def _next_counter(self, stream: Stream) -> int:
        """Allocate a number; on disk before it is used, so that no crash makes it occur twice."""
        bundle = self._file.bundle
        number = bundle.sent.get(stream, 0) + 1
        self._file.save(msgspec.structs.replace(bundle, sent={**bundle.sent, stream: number}))
        return number

    def _sender(self) -> Sender:
        head = self._membership.head
        if head is None:
            raise Unreachable("link_lost", "no signed head yet")
        bundle = self._file.bundle
        return Sender(self._membership.mesh, PeerId(bundle.member), bundle.card, head)

    def _nonce(self) -> bytes:
        return self._runtime.entropy(24)

    # Epochs

    async def _epoch_of(self, scope: ChannelId) -> HeldEpoch:
        """An epoch of our own making that the send rule still allows, else a new one."""
        kept = (HeldEpoch(open_record(one.st), bytes.fromhex(one.secret), UnixMillis(one.at)) for one in self._kept())
        book = EpochBook(kept)
        for _ in range(MAX_ATTEMPTS):
            usable = book.usable(self._membership.roster, scope, self._runtime.now())
            if usable is not None:
                return usable
            try:
                return await self._rotate(scope)
            except Refused as error:
                if error.code == "rate_limited":
                    await asyncio.sleep((error.retry_after_ms or limits.EPOCH_INTERVAL_MS) / 1000)
                elif error.code in RESEAL_CODES:
                    await self._membership.catch_up(self._line)
                else:
                    raise
        raise Unreachable("timeout", "the channel does not settle")

    async def _rotate(self, scope: ChannelId) -> HeldEpoch:
        """Make an epoch for exactly those whom the roster names, publish it, and keep it for the next run."""
        roster, now, sender = self._membership.roster, self._runtime.now(), self._sender()
        holders = slot_holders(roster, scope, roster.seq)
        await self._look_up(holders)
        boxes = {peer: self._box_of(peer) for peer in holders}
        keys, entropy = self._session.keys, self._runtime.entropy(64)
        made = epochs.rotate(roster, sender.head, scope, sender.member, keys, boxes, now, entropy)
        frame = PutEpoch(rid=0, st=made.statement, att=self._session.attestation.digest, slots=list(made.slots))
        await self._line.request(frame, Ok)
        fresh = [one for one in self._kept() if open_record(one.st).scope != scope]
        fresh.append(KeptEpoch(made.statement, made.secret.hex(), now))
        self._file.save(msgspec.structs.replace(self._file.bundle, epochs=fresh))
        return HeldEpoch(made.record, made.secret, now)

    def _kept(self) -> list[KeptEpoch]:
        return self._file.bundle.epochs

    # Names and cards

    def _channel(self, address: str) -> ChannelId:
        channels = self._membership.roster.channels
        named = {f"#{GENERAL_NAME}": str(GENERAL)} | self._file.bundle.channels
        found = ChannelId(named.get(address, ""))
        if found not in channels:
            raise AddressError("unknown_address", f"{address}; this session knows {', '.join(sorted(named))}")
        return found

    def _known_peers(self) -> list[KnownPeer]:
        names = {one.member: one for one in self._file.bundle.names}
        known = []
        for member in self._membership.roster.active_members():
            named = names.get(member.id)
            name, device = (named.name, named.device) if named is not None else ("", "")
            known.append(KnownPeer(member.id, UserId(member.user), name, device))
        return known

    async def _look_up(self, peers: Iterable[PeerId]) -> None:
        """Fetch the cards of peers, and keep those that verify."""
        unknown = [str(peer) for peer in peers if peer not in self._cards]
        if not unknown:
            return
        answer = await self._line.request(GetCards(rid=0, members=unknown), Cards)
        for statement in answer.cards:
            try:
                card = identity.open_card(statement)
            except Invalid:
                continue  # then the key of the roster is used
            if card.mesh == self._membership.mesh:
                self._cards[card.member] = card

    def _box_of(self, peer: PeerId) -> BoxId:
        member, card = self._membership.roster.members[peer], self._cards.get(peer)
        return member.box if card is None or card.number < member.card_floor else card.box

    def _require(self, capability: str) -> None:
        if capability not in self.capabilities:
            raise EnvelopeRefused("cap", f"this session has {', '.join(self.capabilities)}, not {capability}")


@asynccontextmanager
async def open_restricted(
    path: Path, *, connect: Connect = transport.connect, runtime: Runtime | None = None
) -> AsyncIterator[RestrictedSession]:
    """Open a session's file and link, with the roster fetched and verified.

    Raises:
        LocalError: `config_mode`, `config_locked`, `session_file` or `session_expired`.
        Refused: `revoked` or `unknown_peer`; its peer was removed.
        Unreachable, HandshakeRefused, RosterConflict: As for a peer.
    """
    runtime = runtime or Runtime()
    with BundleFile.open(path) as file:
        bundle = file.bundle
        attestation = bundle.open_attestation()
        if attestation.expires_at <= runtime.now():
            raise LocalError("session_expired", bundle.label)
        dialler = Member(
            attestation.mesh, attestation.member, bundle.keys(), bundle.attestation, 0, Digest(attestation.mesh),
            bundle.label,
        )  # fmt: skip
        async with Journal(None) as journal:
            membership = Membership(attestation.mesh, bundle.log, journal, Hub(), runtime)
            await membership.load()
            line, _ = await dial(connect, bundle.broker.url, BrokerId(bundle.broker.bk), dialler, runtime)
            session = RestrictedSession(file, membership, line, runtime)
            reading = asyncio.create_task(line.run(session.handle))
            reading.add_done_callback(lambda _: session.fail())
            try:
                await membership.catch_up(line)
                _remember(file, membership)
                yield session
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                await line.close()


def _remember(file: BundleFile, membership: Membership) -> None:
    """How far the roster went: the next time a broker may not show less."""
    if membership.frozen is not None:
        raise RosterConflict("frozen", membership.frozen.code)
    if membership.pin != file.bundle.log:
        file.save(msgspec.structs.replace(file.bundle, log=membership.pin))
