"""What goes into many mailboxes, on its way into the store and out to the links (docs/spec/broker.md §4.3).

Recipients and routes are decided when the commit begins: until then the members may change.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from claudemesh.broker.admission import object_to_place
from claudemesh.broker.directory import KnownAttestation, Mesh
from claudemesh.broker.leasing import Leasing
from claudemesh.broker.links import Link
from claudemesh.broker.policy import Limits, Quota
from claudemesh.broker.pushing import delivery
from claudemesh.broker.routing import Mailbox
from claudemesh.broker.store.base import FannedOut, FanOut, Notice, Recipient, SharedKind, Told, Undelivered
from claudemesh.errors import ClaudemeshError, Refused
from claudemesh.protocol.confirmation import is_confirmed
from claudemesh.types import ChannelId, MessageId, PeerId, Priority, UnixMillis

MAILBOXES_PER_MESSAGE: Final = 64
"""Mailboxes that a post may fill for the price of one more message."""

Delivered = tuple[KnownAttestation, bytes]
"""A delivery as it stands in a `push`, and the attestation that goes before it."""


@dataclass(slots=True, eq=False)
class PendingFanOut:
    """One admitted post or epoch on its way into the store."""

    link: Link
    mesh: Mesh
    kind: SharedKind
    channel: ChannelId
    id: str
    priority: Priority | None
    roster_seq: int
    attestation: KnownAttestation
    payload: bytes
    size: int
    expires_at: UnixMillis
    not_before: UnixMillis | None = None
    slots: Mapping[PeerId, str] = field(default_factory=dict)
    """Of an epoch: whom it is for."""
    published: asyncio.Future[None] | None = None
    """Of an epoch: who waits for the answer."""
    routes: list[tuple[Mailbox, Link | None]] = field(default_factory=list)
    """The mailboxes that it goes into, and the link that each row is leased to as it is stored."""
    missed: list[PeerId] = field(default_factory=list)
    """Whose mailboxes have no room for it."""
    notices: list[Told] = field(default_factory=list)
    """Of a post: what its sender is told of those."""

    def recipients(self) -> Iterator[PeerId]:
        """Whom it is for, by the roster of this moment."""
        if self.kind == "epoch":
            return (peer for peer in self.slots if self.mesh.roster.is_active(peer))
        subscribers = self.mesh.subscriptions.subscribers(self.mesh.roster, self.channel)
        return (peer for peer in subscribers if peer != self.link.peer)

    def mailboxes(self) -> list[Mailbox]:
        """Theirs."""
        return [self.mesh.mailbox(peer) for peer in self.recipients()]

    def recheck(self) -> Refused | None:
        """Why it may not be stored any more, or None."""
        objection = object_to_place(self.mesh, self.channel, self.link.peer, self.roster_seq)
        return None if objection is None else Refused(*objection)

    def settle(self, error: ClaudemeshError | None = None) -> None:
        """Tell whoever waits for the answer."""
        if self.published is None or self.published.done():
            return
        if error is None:
            self.published.set_result(None)
        else:
            self.published.set_exception(error)


class Routes:
    """Decides where the rows of a fan-out go, and undoes or carries out what was decided."""

    def __init__(self, leasing: Leasing, limits: Limits, notice: Callable[[str], Notice]) -> None:
        self._leasing = leasing
        self._limits = limits
        self._notice = notice

    def open(self, one: PendingFanOut, quotas: Mapping[Mailbox, Quota]) -> FanOut:
        """Choose the mailboxes that have room, and keep room in the windows of their links."""
        due = one.not_before is None
        for mailbox in one.mailboxes():
            quota = quotas.get(mailbox)
            if quota is not None and not quota.take(one.size, one.link.peer):
                one.missed.append(mailbox.peer)
                continue
            leased = mailbox.direct(self._limits.buffered_bytes) if due else None
            if leased is not None:
                leased.window.reserve(one.size)
            elif due:
                mailbox.uncommitted += 1
                mailbox.backlog = True
            one.routes.append((mailbox, leased))
        one.notices = self._notices(one, quotas) if one.routes else []
        return FanOut(
            mesh=one.mesh.id,
            sender=one.link.peer,
            kind=one.kind,
            channel=one.channel,
            id=one.id,
            priority=one.priority,
            size=one.size,
            expires_at=one.expires_at,
            attestation=one.attestation.attestation.digest,
            payload=one.payload,
            not_before=one.not_before,
            recipients=[
                Recipient(mailbox.peer, None if leased is None else leased.id, one.slots.get(mailbox.peer, ""))
                for mailbox, leased in one.routes
            ],
            notices=one.notices,
        )

    def finish(self, one: PendingFanOut, stored: FannedOut, pushes: dict[Link, list[Delivered]]) -> None:
        """Add what was leased to `pushes`; the rest waits in its mailbox."""
        if stored.duplicate:
            self.undo(one)
            return
        for (mailbox, link), q, leased in zip(one.routes, stored.qs, stored.leased, strict=True):
            if link is not None and leased and not link.closed:
                link.window.fill(q, one.size)
                slot = one.slots.get(mailbox.peer, "")
                row = delivery(q, stored.accepted_at, one.kind, one.payload, slot)
                pushes.setdefault(link, []).append((one.attestation, row))
                continue
            if link is not None and leased:
                self._leasing.returned(link)
            self._wait(one, mailbox, link)
        if one.not_before is not None:
            self._leasing.scheduled()
        if one.notices:
            self._leasing.waits(one.mesh, one.mesh.mailbox(one.link.peer))

    def undo(self, one: PendingFanOut) -> None:
        """Nothing was stored."""
        for mailbox, link in one.routes:
            self._wait(one, mailbox, link)
        one.routes.clear()
        one.missed.clear()

    def _notices(self, one: PendingFanOut, quotas: Mapping[Mailbox, Quota]) -> list[Told]:
        """What the sender of a post is told where each recipient is accounted for, while its own mailbox has room."""
        if one.kind != "post" or not one.missed or not is_confirmed(one.mesh.roster, one.channel):
            return []
        own, make, told = quotas.get(one.mesh.mailbox(one.link.peer)), self._notice("mailbox_full"), []
        for peer in one.missed:
            missing = Undelivered(one.mesh.id, peer, one.link.peer, MessageId(one.id))
            statement = make(missing)
            if own is None or own.take(len(statement), beyond_whole=True):
                told.append((missing, statement))
        return told

    def _wait(self, one: PendingFanOut, mailbox: Mailbox, link: Link | None) -> None:
        if link is not None:
            link.window.cancel(one.size)
        elif one.not_before is None:
            mailbox.uncommitted -= 1
        if one.not_before is None:
            self._leasing.waits(one.mesh, mailbox)


def message_cost(recipients: int, burst: int) -> int:
    """How many messages a post counts as that goes into `recipients` mailboxes."""
    return min(burst, 1 + recipients // MAILBOXES_PER_MESSAGE)


def mailboxes_of(fan_outs: Sequence[PendingFanOut]) -> set[Mailbox]:
    """Every mailbox that any of them goes into, or a notice to its sender."""
    return {mailbox for one in fan_outs for mailbox in [*one.mailboxes(), one.mesh.mailbox(one.link.peer)]}
