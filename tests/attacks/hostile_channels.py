"""What the hostile broker does with posts and epochs: it carries them, keeps them, holds them back or makes them up."""

import itertools
from collections.abc import Sequence

import msgspec

from claudemesh.crypto import statements
from claudemesh.crypto.epoch_record import open_record
from claudemesh.crypto.statements import Statement
from claudemesh.protocol import messages
from claudemesh.protocol.audit_rows import size_class
from claudemesh.protocol.epoch_rules import slot_holders
from claudemesh.protocol.messages import Delivery, PeerMessage, Post, PublishedEpoch, PutEpoch
from claudemesh.types import ChannelId, PeerId
from tests.attacks.clock import eventually
from tests.attacks.hostile_broker import HostileBroker
from tests.attacks.hostile_link import HostileLink

_FIRST_ROW = 1_000_000
"""Beyond the numbers that the broker gives to direct messages."""


class ChannelCarrier:
    """The part of a hostile broker that serves channels; `posts` and `epochs` keep all that passed through it."""

    def __init__(self, broker: HostileBroker) -> None:
        self.broker = broker
        broker.lies.incoming = self._incoming
        self.posts: list[Post] = []
        self.epochs: list[PutEpoch] = []
        self.swallows: set[type[PeerMessage]] = set()
        """Frames of these kinds are neither stored nor answered."""
        self.holds: set[type[PeerMessage]] = set()
        """What these bring is accepted, but not delivered by itself."""
        self._rows: dict[PeerId, dict[int, tuple[Delivery, Statement | None]]] = {}
        self._numbers = itertools.count(_FIRST_ROW)

    # What a test does with it

    async def push(self, to: PeerId, *deliveries: Delivery, attestations: Sequence[Statement]) -> list[int]:
        """Deliver anything to a peer; returns the numbers that it acknowledges."""
        link = await self.broker.connected(to)
        numbered = [msgspec.structs.replace(one, q=next(self._numbers), at=self.broker.clock()) for one in deliveries]
        await link.emit(messages.Push(d=numbered, atts=list(attestations)))
        return [one.q for one in numbered]

    async def deliver(self, to: PeerId) -> None:
        """Push everything that waits for a peer, also what was held back."""
        link = await self.broker.connected(to)
        await self._flush(link, forced=True)

    async def posted(self, sender: PeerId, count: int = 1) -> list[Post]:
        """Wait for the first `count` posts of a peer."""
        await eventually(lambda: len(self._posts_of(sender)) >= count, f"{sender[:8]} posts")
        return self._posts_of(sender)

    def epoch(self, epoch: str) -> PutEpoch:
        """The publication of an epoch."""
        return next(one for one in self.epochs if open_record(one.st).id == epoch)

    def slots(self, epoch: str, link: HostileLink) -> dict[PeerId, str]:
        """Who was given which slot."""
        put = self.epoch(epoch)
        record = open_record(put.st)
        holders = slot_holders(link.view.roster, record.scope, record.roster_seq)
        return dict(zip(holders, put.slots, strict=True))

    def _posts_of(self, sender: PeerId) -> list[Post]:
        return [post for post in self.posts if post.sender == sender]

    # The honest wire

    async def _incoming(self, link: HostileLink, frame: PeerMessage) -> bool:
        if type(frame) in self.swallows:
            return True
        match frame:
            case Post():
                await self._post(link, frame)
            case PutEpoch():
                await self._put_epoch(link, frame)
            case messages.Subscribe():
                await link.emit(messages.Ok(rid=frame.rid))
            case messages.Ack() | messages.Hello():
                done = frame.q if isinstance(frame, messages.Ack) else frame.cursor
                for number in done:
                    for rows in self._rows.values():
                        rows.pop(number, None)
                return False
            case _:
                if link.is_open:
                    await self._flush(link)
                return False
        return True

    async def _post(self, link: HostileLink, post: Post) -> None:
        held = link.held
        assert held is not None
        self.posts.append(post)
        at, channel = self.broker.clock(), ChannelId(post.chan)
        number, row_hash = held.audit.add(
            "send", post.sender, channel, at, size_class=size_class(len(post.ct)), priority=post.prio
        )
        row = {"id": post.id, "chan": channel, "n": number, "h": row_hash}
        body = {"v": 1, "at": at, "mesh": held.main.mesh, "r": [row]}
        await link.emit(messages.Accepted(st=statements.sign_statement(body, "accept", self.broker.key)))
        envelope = msgspec.Raw(link.heard[-1].encode())
        for member in held.main.roster.channel_members(channel) - {link.peer}:
            self._store(member, Delivery(q=0, at=at, e=envelope), held.attestations.get(post.att))
        await self._flush_all(link, Post)

    async def _put_epoch(self, link: HostileLink, put: PutEpoch) -> None:
        held = link.held
        assert held is not None
        self.epochs.append(put)
        record = open_record(put.st)
        await link.emit(messages.Ok(rid=put.rid))
        published = msgspec.Raw(msgspec.json.encode(PublishedEpoch(put.st, put.att)))
        holders = slot_holders(held.main.roster, record.scope, record.roster_seq)
        for member, slot in zip(holders, put.slots, strict=True):
            delivery = Delivery(q=0, at=self.broker.clock(), ep=published, slot=slot)
            self._store(member, delivery, held.attestations.get(put.att))
        await self._flush_all(link, PutEpoch)

    def _store(self, to: PeerId, delivery: Delivery, attestation: Statement | None) -> None:
        number = next(self._numbers)
        numbered = msgspec.structs.replace(delivery, q=number)
        self._rows.setdefault(to, {})[number] = (numbered, attestation)

    async def _flush_all(self, source: HostileLink, kind: type[PeerMessage]) -> None:
        if kind in self.holds:
            return
        for link in [link for link in self.broker.links if link.is_open and link.held is source.held]:
            await self._flush(link)

    async def _flush(self, link: HostileLink, forced: bool = False) -> None:
        if link.peer is None or (self.holds and not forced):
            return
        waiting = [row for number, row in self._rows.get(link.peer, {}).items() if number not in link.leased]
        if not waiting:
            return
        link.leased.update(delivery.q for delivery, _ in waiting)
        shown = list({attestation.b: attestation for _, attestation in waiting if attestation is not None}.values())
        await link.emit(messages.Push(d=[delivery for delivery, _ in waiting], atts=shown))
