"""A small client of the wire for tests: it founds, joins, sends and receives, without the peer package.

It keeps every frame that it has read, so that a test may ask for one kind of frame and look at the others
afterwards. The ciphertexts are made up: a broker cannot tell.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import msgspec

from claudemesh.crypto import identity, primitives, statements
from claudemesh.crypto.epochs import NewEpoch, make_epoch
from claudemesh.crypto.primitives import SigningKey
from claudemesh.crypto.statements import Statement
from claudemesh.errors import Refused, Unreachable
from claudemesh.protocol import codec, messages
from claudemesh.protocol.epoch_rules import slot_holders
from claudemesh.protocol.limits import DAY_MS
from claudemesh.protocol.link import Founder, Greeted, LinkHolder, Member, Opened, PeerLink, refusal
from claudemesh.protocol.messages import BrokerMessage, Message
from claudemesh.protocol.roster import Entry, Roster, sign_entry
from claudemesh.transport import NORMAL, Pipe, connect
from claudemesh.types import BrokerId, ChannelId, InviteId, MeshId, PeerId, UnixMillis

T = TypeVar("T", bound=Message)

PATIENCE_S: Final = 10.0
"""How long a test waits for what must come; reaching it is a failure, never a result."""


def now() -> UnixMillis:
    """This machine's clock."""
    return UnixMillis(time.time_ns() // 1_000_000)


def random_key() -> SigningKey:
    """A new Ed25519 pair."""
    return primitives.signing_key(os.urandom(32))


class Identity:
    """The keys of one peer, and its replica of the roster."""

    def __init__(self) -> None:
        self.sign = random_key()
        self.user = random_key()
        self.box = primitives.box_key(os.urandom(32))
        self.session = identity.session_keys(os.urandom(64))
        self.roster = Roster()
        self.is_linked = False
        """Whether it joins with a device link: its user need not sign then."""

    @property
    def id(self) -> PeerId:
        return PeerId(self.sign.public)

    @property
    def mesh(self) -> MeshId:
        assert self.roster.mesh is not None
        return self.roster.mesh

    def attestation(
        self,
        lifetime_ms: int = DAY_MS,
        age_ms: int = 1_000,
        capabilities: tuple[str, ...] = identity.CAPABILITIES,
    ) -> Statement:
        """An attestation of the session; the same as long as the arguments and the session are."""
        key = (self.session.id, lifetime_ms, age_ms, capabilities)
        made: dict[Any, Statement] = self.__dict__.setdefault("_attestations", {})
        if key not in made:
            made[key] = identity.attest(
                self.sign, self.mesh, self.session, UnixMillis(now() - age_ms), lifetime_ms, capabilities
            )
        return made[key]

    def entry(self, op: str, *others: SigningKey, at: int | None = None, **fields: Any) -> Entry:
        """An entry of this peer on its own head."""
        body = self.roster.next_body(op, UnixMillis(now() if at is None else at), **{"by": self.id, **fields})
        return sign_entry(body, self.sign, *others)

    def genesis(self, broker: BrokerId, recovery: str | None = None) -> Entry:
        """The first entry of a mesh of which this peer is the owner."""
        keys = {"sign": self.sign.public, "box": self.box.public, "user": self.user.public}
        extra = {} if recovery is None else {"rec": recovery}
        return self.entry("genesis", m=keys, bk=broker, nonce=os.urandom(16).hex(), **extra)

    def invite(self, invite: SigningKey, uses: int = 10, expires_in_ms: int = DAY_MS) -> Entry:
        """An invite by this peer."""
        expires_at = now() + expires_in_ms
        return self.entry("invite", invite, inv=invite.public, role="member", uses=uses, exp=expires_at)

    def admission(self, invite: SigningKey, at: int | None = None) -> Entry:
        """This peer's own admission by an invite key."""
        keys = {"sign": self.sign.public, "box": self.box.public, "user": self.user.public}
        body = self.roster.next_body("admit", UnixMillis(now() if at is None else at), by=invite.public, m=keys)
        return sign_entry(body, invite, self.sign, *(() if self.is_linked else (self.user,)))

    def card(self, number: int = 1) -> Statement:
        """A card with this peer's box key."""
        box = self.roster.members[self.id].box
        return identity.issue_card(self.sign, self.mesh, number, box, now(), self.roster.seq, self.roster.head)

    def envelope(self, to: PeerId, size: int = 1_300, **fields: Any) -> messages.Send:
        """An envelope with a made-up ciphertext of `size` bytes."""
        given = {
            "k": "dm",
            "mesh": self.mesh,
            "sender": self.id,
            "to": to,
            "kid": self.box.public,
            "id": os.urandom(16).hex(),
            "prio": "next",
            "rs": self.roster.seq,
            "att": statements.statement_digest(self.attestation(), "att"),
            "nonce": statements.to_base64url(os.urandom(24)),
            "ct": statements.to_base64url(os.urandom(size)),
        }
        return messages.Send(**{**given, **fields})

    def post(self, channel: ChannelId, size: int = 1_300, **fields: Any) -> messages.Post:
        """A post with a made-up ciphertext of `size` bytes, under an epoch that nobody has."""
        given = {
            "mesh": self.mesh,
            "sender": self.id,
            "chan": channel,
            "ep": "ee" * 32,
            "id": os.urandom(16).hex(),
            "prio": "next",
            "rs": self.roster.seq,
            "att": statements.statement_digest(self.attestation(), "att"),
            "nonce": statements.to_base64url(os.urandom(24)),
            "ct": statements.to_base64url(os.urandom(size)),
        }
        return messages.Post(**{**given, **fields})

    def epoch(self, scope: ChannelId, **changes: Any) -> NewEpoch:
        """An epoch of a scope for those whom this peer's roster names, whether or not the rules allow it."""
        roster = self.roster
        head = {"rs": roster.seq, "rh": roster.head, "ra": 0, "rg": ""}
        draft = {"v": 1, "mesh": self.mesh, "chan": scope, "by": self.id, "at": now(), **head, **changes}
        boxes = [roster.members[peer].box for peer in slot_holders(roster, scope, roster.seq)]
        return make_epoch(draft, self.session, boxes, os.urandom(64))

    def follow(self, entries: Sequence[Entry]) -> None:
        """Apply entries that are new to this replica."""
        for entry in entries:
            if msgspec.json.decode(entry.b)["seq"] > self.roster.seq:
                self.roster.apply(entry)


class Wire:
    """One link, dialled by a test."""

    def __init__(self, pipe: Pipe, link: PeerLink | None) -> None:
        self.pipe = pipe
        self.link = link
        self.frames: deque[BrokerMessage] = deque()
        """Read, and not taken by `expect` yet."""
        self.greeted: Greeted | None = None
        self.opened: Opened | None = None
        self._rid = 0

    async def send(self, frame: Message | bytes) -> None:
        """Send a message, or bytes as they are."""
        await self.pipe.send(frame if isinstance(frame, bytes) else codec.encode_message(frame))

    async def read(self) -> BrokerMessage:
        """The next frame from the wire; raises `Unreachable` when the link has ended."""
        async with asyncio.timeout(PATIENCE_S):
            return codec.decode_broker_message(await self.pipe.recv())

    async def expect(self, kind: type[T], **fields: Any) -> T:
        """The next frame of `kind` with these fields; others are kept for later."""
        for kept in self.frames:
            if isinstance(kept, kind) and _matches(kept, fields):
                self.frames.remove(kept)
                return kept
        while True:
            frame = await self.read()
            if isinstance(frame, kind) and _matches(frame, fields):
                return frame
            self.frames.append(frame)

    async def quiet(self, kind: type[Message], for_s: float = 0.2) -> bool:
        """Whether no frame of `kind` came before a `pong` that is asked for after a while."""
        await asyncio.sleep(for_s)
        await self.send(messages.Ping())
        await self.expect(messages.Pong)
        return not any(isinstance(frame, kind) for frame in self.frames)

    async def ended(self) -> messages.Closing | messages.Refused | None:
        """Read until the link has ended; what the broker said last, if it said why."""
        last: messages.Closing | messages.Refused | None = None
        try:
            while True:
                frame = await self.read()
                if isinstance(frame, messages.Closing | messages.Refused):
                    last = frame
        except Unreachable:
            return last

    async def request(self, kind: type[T], make: type[Message], **fields: Any) -> T:
        """Send a request with a new `rid` and return its answer; raises `Refused` as the broker does."""
        self._rid += 1
        await self.send(make(rid=self._rid, **fields))
        while True:
            frame = await self.read()
            if isinstance(frame, kind) and getattr(frame, "rid", None) == self._rid:
                return frame
            if isinstance(frame, messages.Refused) and frame.rid == self._rid:
                raise refusal(frame)
            self.frames.append(frame)

    async def append(self, *entries: Entry) -> messages.Appended:
        """Append entries; raises `Refused`."""
        return await self.request(messages.Appended, messages.Append, entries=list(entries))

    async def accepted(self) -> list[dict[str, Any]]:
        """The rows of the next `accepted` statement."""
        statement = (await self.expect(messages.Accepted)).st
        body = statements.open_statement(statement, "accept")
        statements.check_fields(body, messages.ACCEPT_FIELDS)
        for row in body["r"]:
            is_post = "chan" in row
            statements.check_fields(row, messages.ACCEPT_POST_ROW_FIELDS if is_post else messages.ACCEPT_ROW_FIELDS)
        rows: list[dict[str, Any]] = body["r"]
        return rows

    async def submit(self, envelope: messages.Send | messages.Post) -> dict[str, Any]:
        """Send one envelope and wait for its row; raises `Refused`."""
        await self.send(envelope)
        while True:
            frame = await self.read()
            if isinstance(frame, messages.Accepted):
                rows = statements.open_statement(frame.st, "accept")["r"]
                for row in rows:
                    if row["id"] == envelope.id:
                        return dict(row)
            elif isinstance(frame, messages.Refused) and frame.id == envelope.id:
                raise refusal(frame)
            else:
                self.frames.append(frame)

    async def publish(self, made: NewEpoch, by: Identity, **changes: Any) -> None:
        """Publish an epoch that `by` has made; raises `Refused`."""
        att = statements.statement_digest(by.attestation(), "att")
        fields = {"st": made.statement, "att": att, "slots": list(made.slots), **changes}
        await self.request(messages.Ok, messages.PutEpoch, **fields)

    async def subscribe(self, channel: ChannelId, on: bool) -> None:
        """Say whether posts of a channel are wanted; raises `Refused`."""
        await self.request(messages.Ok, messages.Subscribe, chan=channel, on=on)

    async def deliveries(self, count: int) -> list[messages.Delivery]:
        """The next `count` deliveries."""
        found: list[messages.Delivery] = []
        while len(found) < count:
            found += (await self.expect(messages.Push)).d
        return found

    async def acknowledge(self, *deliveries: messages.Delivery) -> None:
        """Acknowledge deliveries, and wait until the broker has read that."""
        await self.send(messages.Ack(q=[one.q for one in deliveries]))
        await self.send(messages.Ping())
        await self.expect(messages.Pong)

    async def close(self) -> None:
        await self.pipe.close(NORMAL)


@asynccontextmanager
async def dial(url: str, dialler: Member | LinkHolder | Founder) -> AsyncIterator[Wire]:
    """Dial and answer the challenge; the link of a founder waits for its first entries."""
    pipe = await connect(url)
    try:
        link = PeerLink(url, None, dialler, os.urandom(16), now())
        wire = Wire(pipe, link)
        greeted = link.receive(await pipe.recv(), now())
        assert isinstance(greeted, Greeted)
        wire.greeted = greeted
        if greeted.reply is not None:
            await pipe.send(greeted.reply)
            answer = link.receive(await pipe.recv(), now())
            if isinstance(answer, Opened):
                wire.opened = answer
            else:
                assert isinstance(answer, messages.Claimed)
                wire.frames.append(answer)
        yield wire
    finally:
        await pipe.close(NORMAL)


@asynccontextmanager
async def dial_raw(url: str) -> AsyncIterator[Wire]:
    """Dial and say nothing."""
    pipe = await connect(url)
    try:
        yield Wire(pipe, None)
    finally:
        await pipe.close(NORMAL)


def hello(one: Identity, *, cursor: tuple[int, ...] = (), sid: str = "") -> Member:
    """How `one` dials as a member."""
    roster = one.roster
    return Member(one.mesh, one.id, one.session, one.attestation(), roster.seq, roster.head, sid=sid, cursor=cursor)


@asynccontextmanager
async def member(url: str, one: Identity, **how: Any) -> AsyncIterator[Wire]:
    """An open link of `one`, its replica brought up to date."""
    async with dial(url, hello(one, **how)) as wire:
        while True:
            log = await wire.expect(messages.Log)
            one.follow(log.entries)
            if not log.more:
                break
        yield wire


async def found(url: str, owner: Identity) -> MeshId:
    """Make a mesh of which `owner` is the first peer."""
    async with dial(url, Founder()) as wire:
        assert wire.greeted is not None
        genesis = owner.genesis(wire.greeted.broker)
        await wire.append(genesis)
        owner.roster.apply(genesis)
    return owner.mesh


async def issue(url: str, owner: Identity, uses: int = 10, expires_in_ms: int = DAY_MS) -> SigningKey:
    """Have `owner` append an invite; returns the invite's key."""
    invite = random_key()
    async with member(url, owner) as wire:
        entry = owner.invite(invite, uses, expires_in_ms)
        await wire.append(entry)
        owner.roster.apply(entry)
    return invite


async def join(url: str, newcomer: Identity, mesh: MeshId, invite: SigningKey) -> None:
    """Join with an invite key, as the holder of a link does; raises `Refused`."""
    async with dial(url, LinkHolder(invite, mesh[:32])) as wire:
        while True:
            log = await wire.request(messages.Log, messages.Sync, seq=newcomer.roster.seq + 1)
            newcomer.follow(log.entries)
            if log.more:
                continue
            admission = newcomer.admission(invite)
            try:
                await wire.append(admission)
            except Refused as error:
                if error.code != "cas":
                    raise
                continue
            newcomer.roster.apply(admission)
            return


async def mesh_of(url: str, count: int) -> list[Identity]:
    """A mesh with `count` peers, the owner first; every replica is up to date."""
    peers = [Identity() for _ in range(count)]
    mesh = await found(url, peers[0])
    if count > 1:
        invite = await issue(url, peers[0], uses=count)
        for newcomer in peers[1:]:
            await join(url, newcomer, mesh, invite)
    for one in peers:
        async with member(url, one):
            pass
    return peers


def invite_id(invite: SigningKey) -> InviteId:
    """The public half of an invite."""
    return InviteId(invite.public)


def _matches(frame: Message, fields: dict[str, Any]) -> bool:
    return all(getattr(frame, name, None) == value for name, value in fields.items())
