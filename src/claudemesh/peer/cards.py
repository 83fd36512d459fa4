"""Cards: the current box key of every peer, as that peer signed it (docs/spec/statements.md §4).

The highest number wins and a lower one is refused, so a broker cannot bring back a key that was replaced.
"""

import sqlite3
from collections.abc import Iterable

from claudemesh.crypto import identity
from claudemesh.crypto.identity import Card
from claudemesh.crypto.statements import Statement
from claudemesh.errors import Invalid
from claudemesh.peer import events
from claudemesh.peer.events import Hub
from claudemesh.peer.journal import Journal, handed_out, keys
from claudemesh.peer.keyring import Keyring
from claudemesh.peer.line import Line
from claudemesh.peer.membership import Membership
from claudemesh.peer.runtime import Runtime
from claudemesh.protocol.messages import Cards as CardsAnswer
from claudemesh.protocol.messages import GetCards, Ok, PutCard
from claudemesh.types import BoxId, PeerId, SessionId

MAX_CARDS_PER_REQUEST = 1_000


class CardDirectory:
    """The newest verified card of every peer, and the publication of this peer's own."""

    def __init__(self, membership: Membership, keyring: Keyring, journal: Journal, hub: Hub, runtime: Runtime) -> None:
        self._membership = membership
        self._keyring = keyring
        self._journal = journal
        self._hub = hub
        self._runtime = runtime
        self._cards: dict[PeerId, Card] = {}
        self._statements: dict[PeerId, Statement] = {}
        self._asked: set[PeerId] = set()
        self.ended: set[SessionId] = set()
        """Every session that its peer ended early, by its newest card."""
        self.foreign = 0
        """Number of the last card of this peer that was found at the broker and that this device never issued."""

    async def load(self) -> None:
        """Read the stored cards; they were verified before they were stored."""
        for statement in await self._journal.read(
            lambda connection: keys.load_cards(connection, self._membership.mesh)
        ):
            card = identity.open_card(statement)
            self._keep(card, statement)

    def begin_link(self) -> None:
        """A new link: every card may have changed meanwhile."""
        self._asked.clear()

    def number_of(self, peer: PeerId) -> int:
        """Number of the newest card known of a peer, 0 when none is."""
        card = self._cards.get(peer)
        return 0 if card is None else card.number

    def dead_sessions(self, peer: PeerId) -> tuple[SessionId, ...]:
        """The sessions that the peer ended early, by its newest card."""
        card = self._cards.get(peer)
        return () if card is None else card.dead

    def box_of(self, peer: PeerId) -> BoxId:
        """The key to encrypt to: that of the newest card, or of the roster where it is newer."""
        member = self._membership.roster.members[peer]
        card = self._cards.get(peer)
        if card is None or card.number < member.card_floor:
            return member.box
        return card.box

    def unasked(self, peers: Iterable[PeerId]) -> set[PeerId]:
        """Those whose cards were not fetched on this link."""
        return {peer for peer in peers if peer not in self._asked and peer != self._keyring.member}

    async def refresh(self, line: Line, peers: Iterable[PeerId]) -> None:
        """Fetch the newest cards of `peers` and keep those that are newer than the known ones.

        Raises:
            Refused, Unreachable: Nothing changed.
        """
        wanted = list(dict.fromkeys(peers))
        for start in range(0, len(wanted), MAX_CARDS_PER_REQUEST):
            members = [str(peer) for peer in wanted[start : start + MAX_CARDS_PER_REQUEST]]
            answer = await line.request(GetCards(rid=0, members=members), CardsAnswer)
            await self._take(answer.cards)
            self._asked.update(PeerId(member) for member in members)

    async def publish(self, line: Line) -> None:
        """See that the broker holds the card of the current box key, and no card that this device never issued.

        Of such a card the secret is not here: a copy of our keys made it, or this device before it was restored from
        an older backup. A newer card takes its place, or nobody could write to this device any more.
        """
        own, current = self._keyring.member, self._keyring.current
        answer = await line.request(GetCards(rid=0, members=[own]), CardsAnswer)
        published: Card | None = None
        for statement in answer.cards:
            card = identity.open_card(statement)
            if card.member == own and card.mesh == self._membership.mesh:
                published = card
        roster, mesh, now = self._membership.roster, self._membership.mesh, self._runtime.now()
        foreign = self._foreign_number(published)
        if foreign:
            self.foreign = foreign
            self._hub.publish(events.CloneSuspected(foreign))
            current = self._keyring.rotate(now, above=foreign)
        elif published is not None and published.number == current.cs:
            return
        dead = await self._journal.read(lambda connection: handed_out.load_dead(connection, mesh, now))
        statement = identity.issue_card(
            self._keyring.sign, mesh, current.cs, BoxId(current.box), now, roster.seq, roster.head, tuple(dead)
        )
        await line.request(PutCard(rid=0, st=statement), Ok)
        await self._take([statement])

    def _foreign_number(self, published: Card | None) -> int:
        """Number of a card of this peer that was not issued here, by broker or roster; 0 when there is none."""
        current, member = self._keyring.current, self._membership.roster.member(self._keyring.member)
        floor = 0 if member is None else member.card_floor
        is_ours = published is None or (published.number, published.box) == (current.cs, current.box)
        other = 0 if is_ours or published is None else published.number
        highest = max(other, floor)
        return highest if highest > current.cs or other == current.cs else 0

    async def _take(self, statements: list[Statement]) -> None:
        fresh: list[tuple[Card, Statement]] = []
        for statement in statements:
            try:
                card = identity.open_card(statement)
            except Invalid as error:
                self._hub.publish(events.EnvelopeRefused(error.code, statement.k[:64]))
                continue
            if self._is_newer(card):
                fresh.append((card, statement))
        if not fresh:
            return

        def write(connection: sqlite3.Connection) -> None:
            for card, statement in fresh:
                keys.save_card(connection, card.mesh, card.member, card.number, statement)

        await self._journal.write(write)
        for card, statement in fresh:
            self._keep(card, statement)

    def _keep(self, card: Card, statement: Statement) -> None:
        known = self._cards.get(card.member)
        if known is not None:
            self.ended.difference_update(known.dead)
        self.ended.update(card.dead)
        self._cards[card.member], self._statements[card.member] = card, statement

    def _is_newer(self, card: Card) -> bool:
        member = self._membership.roster.member(card.member)
        if member is None or card.mesh != self._membership.mesh:
            return False
        if card.member == self._keyring.member and card.number > self._keyring.current.cs:
            return False
        return card.number >= member.card_floor and card.number > self.number_of(card.member)
