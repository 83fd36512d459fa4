"""A member that holds all of its keys and obeys no rule: it writes entries, cards, envelopes and hellos by hand."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import aiohttp
import msgspec

from claudemesh.crypto import envelope, identity, primitives, statements
from claudemesh.crypto.envelope import Opened, Sealed
from claudemesh.crypto.identity import SessionKeys
from claudemesh.crypto.invite import InviteLink
from claudemesh.crypto.primitives import BoxKey, SigningKey
from claudemesh.crypto.statements import Statement
from claudemesh.protocol import codec, handshake, messages
from claudemesh.protocol.handshake import ChallengeBody
from claudemesh.protocol.limits import DAY_MS
from claudemesh.protocol.messages import BrokerMessage, Message, Send
from claudemesh.protocol.roster import Entry, Roster, sign_entry
from claudemesh.types import BoxId, MeshId, PeerId, UnixMillis
from tests.attacks.clock import Clock

Frame = TypeVar("Frame", bound=Message)


class WireMember:
    """One peer's keys, its own replica of the roster, and the tools to break every rule with them."""

    def __init__(self, name: str, clock: Clock | None = None) -> None:
        self.name = name
        self.clock = clock or Clock()
        self.sign = primitives.signing_key(os.urandom(32))
        self.user = primitives.signing_key(os.urandom(32))
        self.box = primitives.box_key(os.urandom(32))
        self.session = identity.session_keys(os.urandom(64))
        self.roster = Roster()
        self.card_number = 0
        self.head_signature: tuple[UnixMillis, str] = (UnixMillis(0), "")
        """Time and signature of the broker's head, shown in every header."""
        self._counters: dict[tuple[str, str], int] = {}
        self._attestation: Statement | None = None

    def __repr__(self) -> str:
        return f"WireMember({self.name})"

    @property
    def id(self) -> PeerId:
        return PeerId(self.sign.public)

    @property
    def mesh(self) -> MeshId:
        assert self.roster.mesh is not None
        return self.roster.mesh

    @property
    def keys(self) -> dict[str, str]:
        """The field `m` of an entry that admits this member."""
        return {"sign": self.sign.public, "box": self.box.public, "user": self.user.public}

    def secrets(self) -> list[bytes]:
        """Every secret of this member, as the 32 bytes that are to be found nowhere else."""
        signing = [key.secret[:32] for key in (self.sign, self.user, self.session.sign)]
        return [*signing, self.box.secret, self.session.box.secret]

    def new_session(self) -> SessionKeys:
        """Replace the session and return the one before."""
        old, self.session = self.session, identity.session_keys(os.urandom(64))
        self._attestation = None
        return old

    # Roster

    def entry(self, op: str, *others: SigningKey, at: int | None = None, **fields: Any) -> Entry:
        """An entry on this member's head, signed by it and by `others`; whether it is allowed is not asked."""
        return self.entry_on(self.roster, op, *others, at=at, **fields)

    def entry_on(self, roster: Roster, op: str, *others: SigningKey, at: int | None = None, **fields: Any) -> Entry:
        """An entry on the head of any roster."""
        body = roster.next_body(op, UnixMillis(self.clock() if at is None else at), **{"by": self.id, **fields})
        return sign_entry(body, self.sign, *others)

    def genesis(self, broker: str, recovery: str | None = None) -> Entry:
        extra: dict[str, Any] = {} if recovery is None else {"rec": recovery}
        return self.entry("genesis", m=self.keys, bk=broker, nonce=os.urandom(16).hex(), **extra)

    def invite(self, link: InviteLink, uses: int = 1, ttl_ms: int = DAY_MS, role: str = "member", **more: Any) -> Entry:
        """The entry that makes `link` an invite; `new_link` makes one."""
        key = link.invite_key()
        expires = more.pop("exp", self.clock() + ttl_ms)
        return self.entry("invite", key, inv=key.public, role=role, uses=uses, exp=expires, **more)

    def new_link(self, broker_url: str) -> InviteLink:
        return InviteLink(broker_url, self.mesh[:32], os.urandom(16))

    def admission(self, invite: SigningKey, at: int | None = None) -> Entry:
        """Admit oneself by an invite key, on one's own head."""
        return self.admission_on(self.roster, invite, at=at)

    def admission_on(self, roster: Roster, invite: SigningKey, by_user: bool = True, at: int | None = None) -> Entry:
        """Admit oneself on the head of any roster; `by_user` false for an invite that fixes the user."""
        now = UnixMillis(self.clock() if at is None else at)
        body = roster.next_body("admit", now, by=invite.public, m=self.keys)
        return sign_entry(body, invite, self.sign, *((self.user,) if by_user else ()))

    # Statements

    def attestation(
        self,
        *,
        session: SessionKeys | None = None,
        issued_at: int | None = None,
        lifetime_ms: int = DAY_MS,
        mesh: MeshId | None = None,
        capabilities: tuple[str, ...] = identity.CAPABILITIES,
        signer: SigningKey | None = None,
    ) -> Statement:
        issued = UnixMillis(self.clock() - 1_000 if issued_at is None else issued_at)
        return identity.attest(
            signer or self.sign, mesh or self.mesh, session or self.session, issued, lifetime_ms, capabilities
        )

    def forged_attestation(self, signer: SigningKey, session: SessionKeys) -> Statement:
        """An attestation that names this member, of somebody else's session, signed by somebody else."""
        honest = statements.decode(self.attestation(session=session).b.encode())
        return statements.sign_statement(honest, "att", signer)

    def card(self, number: int | None = None, box: BoxKey | None = None, dead: tuple[str, ...] = ()) -> Statement:
        """The next card, or one with a number of choice."""
        self.card_number = self.card_number + 1 if number is None else number
        return identity.issue_card(
            self.sign,
            self.mesh,
            self.card_number,
            BoxId((box or self.box).public),
            self.clock(),
            self.roster.seq,
            self.roster.head,
            tuple(dead),  # type: ignore[arg-type]
        )

    # Messages

    def header(self, to: PeerId, kid: str, **fields: Any) -> dict[str, Any]:
        """An honest header with the next counter; `fields` replace any of it, None removes one."""
        stream = (self.session.id, to)
        self._counters[stream] = self._counters.get(stream, 0) + 1
        honest = {
            "v": 1,
            "k": "dm",
            "mesh": self.mesh,
            "from": self.id,
            "sess": self.session.id,
            "to": to,
            "kid": kid,
            "n": self._counters[stream],
            "id": os.urandom(16).hex(),
            "ts": self.clock(),
            "prio": "next",
            "ct": "text/plain",
            "rs": self.roster.seq,
            "rh": self.roster.head,
            "ra": self.head_signature[0],
            "rg": self.head_signature[1],
            "cs": self.card_number,
        }
        return {name: value for name, value in (honest | fields).items() if value is not None}

    def write(
        self,
        to: PeerId,
        kid: str,
        text: str | bytes,
        *,
        attestation: Statement | None = None,
        session: SessionKeys | None = None,
        **fields: Any,
    ) -> "Letter":
        """One message, signed and sealed to the box key `kid`."""
        header = self.header(to, kid, **fields)
        body = text.encode() if isinstance(text, str) else text
        sealed = envelope.seal(header, body, session or self.session, BoxId(kid), os.urandom(24))
        return wrap(header, sealed, attestation or self.usual_attestation())

    def usual_attestation(self) -> Statement:
        """This session's attestation, made once."""
        if self._attestation is None:
            self._attestation = self.attestation()
        return self._attestation

    def read(self, raw: bytes, sender: Statement, secret: bytes | None = None) -> Opened:
        """Open a `send` frame that somebody wrote to this member."""
        frame = codec.decode_send(raw)
        sealed = Sealed(statements.from_base64url(frame.nonce), statements.from_base64url(frame.ct))
        return envelope.open_sealed(sealed, identity.open_attestation(sender), secret or self.box.secret)

    # Links

    def hello(self, challenge: ChallengeBody, **replaced: Any) -> messages.Hello:
        """Answer a challenge; `replaced` exchanges `h` or `att`."""
        statement = handshake.make_hello(
            challenge, self.session, self.mesh, self.id, self.roster.seq, self.roster.head, os.urandom(16), self.clock()
        )
        fields = {"h": statement, "att": self.usual_attestation(), **replaced}
        return messages.Hello(**fields)

    @asynccontextmanager
    async def dial(self, url: str) -> "AsyncIterator[WireLink]":
        """Open a link as this member and finish the handshake."""
        async with dialled(url) as link:
            await link.send(self.hello(await link.challenge()))
            await link.expect(messages.HelloAck)
            log = await link.expect(messages.Log)
            self.follow(*log.entries)
            while log.more:
                log = await link.expect(messages.Log)
                self.follow(*log.entries)
            if log.sth is not None:
                self.take_head(log.sth)
            yield link

    def take_head(self, sth: Statement) -> None:
        """Show this signed head in the headers that follow."""
        body = statements.open_statement(sth, "sth")
        self.head_signature = (body["at"], sth.s)

    def follow(self, *entries: Entry) -> None:
        """Apply entries to one's own replica."""
        for entry in entries:
            self.roster.apply(entry)


class NotRefused(AssertionError):
    """The broker granted what it was expected to refuse."""


@dataclass(frozen=True)
class Letter:
    """A message on its way: the `send` frame, and what its writer knows about it."""

    frame: bytes
    header: dict[str, Any]
    attestation: Statement

    @property
    def id(self) -> str:
        return str(self.header["id"])

    def altered(self, **outer: Any) -> "Letter":
        """With other outer fields; what is signed and encrypted stays as it was."""
        return replace(self, frame=msgspec.json.encode(msgspec.json.decode(self.frame) | outer))


def wrap(header: dict[str, Any], sealed: Sealed, attestation: Statement) -> Letter:
    """Put an envelope's outer fields around a ciphertext."""
    frame = Send(
        k="dm",
        mesh=header["mesh"],
        sender=header["from"],
        to=header["to"],
        kid=header["kid"],
        id=header["id"],
        prio=header["prio"],
        rs=header["rs"],
        att=statements.statement_digest(attestation, "att"),
        nonce=statements.to_base64url(sealed.nonce),
        ct=statements.to_base64url(sealed.ciphertext),
        nbf=header.get("nb"),
        exp=header.get("exp"),
    )
    return Letter(codec.encode_message(frame), header, attestation)


class WireLink:
    """A client's end of a WebSocket, with no opinion on what goes through it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, url: str) -> None:
        self.socket = socket
        self.url = url
        self._rid = 0

    def next_rid(self) -> int:
        self._rid += 1
        return self._rid

    async def send(self, frame: Message | bytes | str) -> None:
        data = codec.encode_message(frame) if isinstance(frame, Message) else frame
        await self.socket.send_str(data.decode() if isinstance(data, bytes) else data)

    async def receive(self, timeout_s: float = 10.0) -> BrokerMessage | None:
        """The next frame; None when the broker has closed the link."""
        frame = await self.socket.receive(timeout=timeout_s)
        if frame.type is not aiohttp.WSMsgType.TEXT:
            return None
        return codec.decode_broker_message(frame.data)

    async def expect(self, kind: type[Frame]) -> Frame:
        """The next frame of one kind, passing over others."""
        while True:
            frame = await self.receive()
            assert frame is not None, f"the link was closed before a {kind.__name__}"
            if isinstance(frame, kind):
                return frame

    async def refusal(self) -> str:
        """The code with which the broker refuses what was sent last; "" when it just closes the link."""
        while True:
            frame = await self.receive()
            match frame:
                case None:
                    return ""
                case messages.Refused() | messages.Closing():
                    return f"{frame.code} {frame.detail}".strip()
                case (
                    messages.HelloAck() | messages.Appended() | messages.Claimed() | messages.Accepted() | messages.Ok()
                ):
                    raise NotRefused(type(frame).__name__)

    async def challenge_statement(self) -> Statement:
        return (await self.expect(messages.Challenge)).st

    async def challenge(self) -> ChallengeBody:
        statement = await self.challenge_statement()
        body = statements.decode(statement.b.encode())
        return ChallengeBody(body["bk"], body["nonce"], body["origin"])

    async def append(self, *entries: Entry) -> str:
        """Append entries; returns "" when they were taken, else the code of the refusal with its detail."""
        await self.send(messages.Append(rid=self.next_rid(), entries=list(entries)))
        while True:
            frame = await self.receive()
            match frame:
                case messages.Appended():
                    return ""
                case messages.Refused() | messages.Closing():
                    return f"{frame.code} {frame.detail}".strip()
                case None:
                    return "closed"


@asynccontextmanager
async def dialled(url: str) -> AsyncIterator[WireLink]:
    """A link on which nothing was said yet."""
    address = "http://claudemesh/ws" if url.startswith("unix://") else url
    connector = aiohttp.UnixConnector(url.removeprefix("unix://")) if url.startswith("unix://") else None
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.ws_connect(address, max_msg_size=0, heartbeat=None) as socket:
            yield WireLink(socket, url)
