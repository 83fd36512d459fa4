"""Members of a mesh and a broker in one process: the I/O around the rules of channels, and no rule of its own.

What a member believes and does comes from `Roster`, `EpochBook`, `check_record` and `check_post`. The
broker keeps everything that it was ever given, so a test can ask what a thief of its store could read.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from claudemesh.crypto import channel_envelope, identity, statements
from claudemesh.crypto.epoch_record import open_record
from claudemesh.crypto.epochs import channel_key
from claudemesh.crypto.frames import Sealed
from claudemesh.crypto.identity import Attestation, SessionKeys
from claudemesh.crypto.primitives import BoxKey, SigningKey, box_key, signing_key
from claudemesh.crypto.statements import Statement
from claudemesh.errors import ClaudemeshError, Refused, RosterConflict, Unopenable
from claudemesh.protocol import epochs
from claudemesh.protocol.epoch_rules import check_fresh, check_publication, slot_holders
from claudemesh.protocol.epochs import EpochBook, HeldEpoch, check_record
from claudemesh.protocol.heads import Gossip, SignedHead, Standing, classify_head, open_head, sign_head
from claudemesh.protocol.limits import DAY_MS
from claudemesh.protocol.message_rules import Unsettled
from claudemesh.protocol.messages import Post
from claudemesh.protocol.posts import CheckedPost, check_post, first_window
from claudemesh.protocol.replay import ReplayWindow
from claudemesh.protocol.roster import EVERYONE, Entry, Roster, sign_entry
from claudemesh.types import BoxId, ChannelId, Digest, PeerId, SessionId, UnixMillis
from tests.rosters import START


@dataclass
class Clock:
    """The one clock of a test."""

    now: UnixMillis = START

    def advance(self, milliseconds: int) -> None:
        self.now = UnixMillis(self.now + milliseconds)


@dataclass(frozen=True)
class StoredEpoch:
    """A record as the broker keeps it, with every slot."""

    statement: Statement
    attestation: Attestation
    slots: dict[PeerId, str]

    @property
    def id(self) -> Digest:
        return statements.statement_digest(self.statement, "epoch")


Row = StoredEpoch | Post


@dataclass
class MemoryBroker:
    """Orders the roster and fans out; `refuses_stale` false is a broker that does not care what is outdated."""

    clock: Clock
    key: SigningKey
    refuses_stale: bool = True
    roster: Roster = field(default_factory=Roster)
    entries: list[Entry] = field(default_factory=list)
    epochs: list[StoredEpoch] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    mailboxes: dict[PeerId, list[Row]] = field(default_factory=dict)
    attestations: dict[str, Attestation] = field(default_factory=dict)

    def append(self, entry: Entry) -> None:
        body = statements.decode(entry.b.encode())
        if body["prev"] != self.roster.head:
            raise Refused("cas")
        self.roster.apply(entry, self.clock.now)
        self.entries.append(entry)

    def signed_head(self) -> Statement:
        assert self.roster.mesh is not None
        return sign_head(self.roster.mesh, self.roster.seq, self.roster.head, self.clock.now, self.key)

    def put_epoch(self, statement: Statement, attestation: Attestation, slots: Iterable[str]) -> StoredEpoch:
        """Store a record with its slots; a careless broker stores whatever comes."""
        record, given = open_record(statement), list(slots)
        if self.refuses_stale:
            check_publication(record, attestation, given, self.roster)
        holders = slot_holders(self.roster, record.scope, record.roster_seq)
        return self.deliver_epoch(StoredEpoch(statement, attestation, dict(zip(holders, given, strict=True))))

    def deliver_epoch(self, stored: StoredEpoch) -> StoredEpoch:
        self.epochs.append(stored)
        for peer in stored.slots:
            self._deliver(peer, stored)
        return stored

    def take_post(self, post: Post) -> None:
        if self.refuses_stale:
            check_fresh(ChannelId(post.chan), post.rs, self.roster)
        self.posts.append(post)
        for peer in self.roster.channel_members(ChannelId(post.chan)) - {post.sender}:
            self._deliver(peer, post)

    def fetch(self, peer: PeerId) -> list[Row]:
        return self.mailboxes.pop(peer, [])

    def fork(self) -> "MemoryBroker":
        """The same broker with the same key and past, ready to tell another story."""
        other = MemoryBroker(self.clock, self.key, self.refuses_stale, Roster.restore(self.entries))
        other.entries, other.epochs = list(self.entries), list(self.epochs)
        other.attestations = self.attestations
        return other

    def _deliver(self, peer: PeerId, row: Row) -> None:
        if self.roster.is_active(peer):
            self.mailboxes.setdefault(peer, []).append(row)


class Member:
    """One peer with all of its keys, and a replica that lags until it syncs."""

    def __init__(self, name: str, broker: MemoryBroker, random: Random) -> None:
        self.name, self.broker, self.clock, self.random = name, broker, broker.clock, random
        self.sign, self.user = signing_key(random.randbytes(32)), signing_key(random.randbytes(32))
        self.boxes = [box_key(random.randbytes(32))]
        self.roster, self.book = Roster(), EpochBook()
        self.head: SignedHead | None = None
        self.frozen: Gossip | Standing | None = None
        self.proof: SignedHead | None = None
        self.messages: dict[str, CheckedPost] = {}
        self.gaps: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.quarantine: dict[str, str] = {}
        self.parked: list[Post] = []
        self._windows: dict[tuple[SessionId, ChannelId], ReplayWindow] = {}
        self.dead: set[SessionId] = set()

    def __repr__(self) -> str:
        return f"Member({self.name})"

    @property
    def id(self) -> PeerId:
        return PeerId(self.sign.public)

    @property
    def keys(self) -> dict[str, str]:
        """The field `m` of an entry that admits this member."""
        return {"sign": self.sign.public, "box": self.boxes[0].public, "user": self.user.public}

    @property
    def box_secrets(self) -> dict[BoxId, bytes]:
        return {BoxId(box.public): box.secret for box in self.boxes}

    # Sessions

    def open_session(self, capabilities: tuple[str, ...] = identity.CAPABILITIES) -> None:
        """Start a session and show its attestation to the broker."""
        assert self.roster.mesh is not None
        self.session: SessionKeys = identity.session_keys(self.random.randbytes(64))
        self.counters: Counter[str] = Counter()
        signed = identity.attest(self.sign, self.roster.mesh, self.session, self.clock.now, 7 * DAY_MS, capabilities)
        self.attestation = identity.open_attestation(signed)
        self.broker.attestations[self.attestation.digest] = self.attestation

    # Roster

    def found(self, **fields: Any) -> "Member":
        nonce = self.random.randbytes(16).hex()
        self._append_now("genesis", m=self.keys, bk=self.broker.key.public, nonce=nonce, **fields)
        self.open_session()
        return self

    def invite(self, uses: int = 1) -> SigningKey:
        invite = signing_key(self.random.randbytes(32))
        expires_at = self.clock.now + 30 * DAY_MS
        self.append("invite", invite, inv=invite.public, role="member", uses=uses, exp=expires_at)
        return invite

    def join(self, invite: SigningKey) -> "Member":
        self.append("admit", self.user, by=invite, m=self.keys)
        self.open_session()
        return self

    def rekey(self) -> BoxKey:
        """Replace a box key that may be stolen; returns the new one."""
        new = box_key(self.random.randbytes(32))
        floor = self.roster.members[self.id].card_floor + 1
        self.append("rekey", box=new.public, cs=floor)
        self.boxes.insert(0, new)
        return new

    def append(self, op: str, *cosigners: SigningKey, by: SigningKey | None = None, **fields: Any) -> None:
        """Append by compare-and-swap: on a head that moved, check and sign again."""
        while True:
            self.sync()
            try:
                self._append_now(op, *cosigners, by=by, **fields)
                return
            except Refused as refusal:
                if refusal.code != "cas":
                    raise

    def sync(self) -> None:
        """Fetch and verify what follows, and require the broker's head for exactly that."""
        for entry in self.broker.entries[self.roster.seq + 1 :]:
            self.roster.apply(entry, self.clock.now)
        head = open_head(self.broker.signed_head(), self.roster)
        standing = classify_head(head, self.roster)
        if standing is not Standing.CURRENT:
            self._freeze(standing, head)
        self.head = head

    # Sending

    def usable(self, channel: ChannelId) -> HeldEpoch | None:
        return self.book.usable(self.roster, self.roster.scope_of(channel), self.clock.now, self.dead)

    def rotate(self, scope: ChannelId = EVERYONE) -> HeldEpoch:
        """Make and publish an epoch on the roster as it is known here."""
        assert self.head is not None
        boxes = {member.id: member.box for member in self.roster.members.values()}
        made = epochs.rotate(
            self.roster, self.head, scope, self.id, self.session, boxes, self.clock.now, self.random.randbytes(64)
        )
        self.broker.put_epoch(made.statement, self.attestation, made.slots)
        held = HeldEpoch(made.record, made.secret, self.clock.now)
        self.book.hold(held)
        return held

    def post(self, channel: ChannelId, text: str, *, sync: bool = True) -> Post:
        """Write to a channel by the send rule; a broker that knows better makes the member sync first."""
        if self.frozen:
            raise RosterConflict("frozen")
        if sync:
            self.sync()
        try:
            epoch = self.usable(channel) or self.rotate(self.roster.scope_of(channel))
            post = self.seal(channel, text, epoch)
            self.broker.take_post(post)
            return post
        except Refused as refusal:
            if refusal.code != "stale_roster" or sync:
                raise
        return self.post(channel, text)

    def seal(self, channel: ChannelId, text: str, epoch: HeldEpoch, **changes: Any) -> Post:
        """A post under `epoch`, whether or not the send rule allows it; `changes` go into the signed header."""
        header = self.header(channel, epoch) | changes
        nonce = self.random.randbytes(24)
        key = channel_key(epoch.secret, channel)
        return self.enclose(header, channel_envelope.seal(header, text.encode(), self.session, key, nonce), channel)

    def header(self, channel: ChannelId, epoch: HeldEpoch) -> dict[str, Any]:
        assert self.head is not None
        self.counters[channel] += 1
        return {
            "v": 1,
            "k": "ch",
            "mesh": self.roster.mesh,
            "from": self.id,
            "sess": self.session.id,
            "chan": channel,
            "ep": epoch.id,
            "n": self.counters[channel],
            "id": self.random.randbytes(16).hex(),
            "ts": self.clock.now,
            "prio": "next",
            "ct": "text/plain",
            "rs": self.head.seq,
            "rh": self.head.head,
            "ra": self.head.at,
            "rg": self.head.signature,
            "cs": 0,
        }

    def enclose(self, header: dict[str, Any], sealed: Sealed, channel: ChannelId) -> Post:
        return Post(
            mesh=header["mesh"],
            sender=header["from"],
            chan=channel,
            ep=header["ep"],
            id=header["id"],
            prio=header["prio"],
            rs=header["rs"],
            att=self.attestation.digest,
            nonce=statements.to_base64url(sealed.nonce),
            ct=statements.to_base64url(sealed.ciphertext),
        )

    # Receiving

    def drain(self, *, shuffle: bool = False) -> None:
        """Read the mailbox. A post whose epoch has not come yet waits for it; what is refused is counted."""
        rows = self.broker.fetch(self.id)
        if shuffle:
            self.random.shuffle(rows)
        for row in rows:
            try:
                self.take_epoch(row) if isinstance(row, StoredEpoch) else self.take_post(row)
            except ClaudemeshError as error:
                self._refuse(row, error)

    def take_epoch(self, stored: StoredEpoch, *, synced: bool = False) -> HeldEpoch:
        slot = stored.slots.get(self.id, "")
        checked = check_record(
            stored.statement,
            stored.attestation,
            slot,
            self.box_secrets,
            self.roster,
            self.clock.now,
            synced=synced,
        )
        if isinstance(checked, Unsettled):
            self._settle(checked)
            return self.take_epoch(stored, synced=True)
        self.hold(checked)
        return checked

    def hold(self, epoch: HeldEpoch) -> None:
        """Keep an epoch, and read what waited for it."""
        self.book.hold(epoch)
        ready = [post for post in self.parked if post.ep == epoch.id]
        self.parked = [post for post in self.parked if post.ep != epoch.id]
        for post in ready:
            try:
                self.take_post(post)
            except ClaudemeshError as error:
                self._refuse(post, error)

    def take_post(self, post: Post, *, synced: bool = False) -> CheckedPost:
        attestation = self.broker.attestations[post.att]
        checked = check_post(post, attestation, self.book, self.roster, self.clock.now, dead=self.dead, synced=synced)
        if isinstance(checked, Unsettled):
            self._settle(checked)
            return self.take_post(post, synced=True)
        header = checked.opened.header
        stream = (header["sess"], checked.channel)
        window = self._windows.get(stream) or first_window(header["n"])
        self._windows[stream], gap = window.accept(header["n"])
        self.gaps[header["sess"]] += gap
        self.messages[header["id"]] = checked
        return checked

    @property
    def texts(self) -> list[str]:
        return [checked.opened.body.decode() for checked in self.messages.values()]

    def _append_now(self, op: str, *cosigners: SigningKey, by: SigningKey | None = None, **fields: Any) -> None:
        author = by or self.sign
        body = self.roster.next_body(op, self.clock.now, by=author.public, **fields)
        own = (self.sign,) if author is not self.sign else ()
        self.broker.append(sign_entry(body, author, *own, *cosigners))
        self.sync()

    def _refuse(self, row: Row, error: ClaudemeshError) -> None:
        self.refusals[error.code] += 1
        if isinstance(row, Post) and isinstance(error, Unopenable) and error.code == "no_epoch_key":
            self.parked.append(row)
        elif isinstance(row, Post):
            self.quarantine[row.id] = error.code

    def _settle(self, unsettled: Unsettled) -> None:
        if unsettled.verdict is Gossip.SYNC:
            self.sync()
        else:
            self._freeze(unsettled.verdict, unsettled.claim)

    def _freeze(self, reason: Gossip | Standing, proof: SignedHead | None) -> None:
        self.frozen, self.proof = reason, proof
        raise RosterConflict("withheld" if reason in (Gossip.WITHHELD, Standing.LONGER) else "fork")


def team(*names: str, seed: int = 0, refuses_stale: bool = True) -> tuple[MemoryBroker, list[Member]]:
    """A broker, and members of which the first owns the mesh; all of them know the whole roster."""
    random = Random(seed)
    broker = MemoryBroker(Clock(), signing_key(random.randbytes(32)), refuses_stale)
    owner = Member(names[0], broker, random).found()
    others = [Member(name, broker, random) for name in names[1:]]
    if others:
        invite = owner.invite(uses=len(others))
        for member in others:
            member.join(invite)
    for member in (owner, *others):
        member.sync()
    return broker, [owner, *others]
