"""The outbox's pump on one link: seal, journal, transmit, and settle what the broker answers.

Only rows that are being submitted are in memory, at most `Tempo.in_flight`; the rest waits in the journal. The
state of each is advanced by `protocol.delivery.step` alone.
"""

import asyncio
import sqlite3
from functools import partial
from typing import Final, NamedTuple

from claudemesh.database import BRIEF_BYTES
from claudemesh.errors import Invalid, Unreachable
from claudemesh.peer.attesting import Attesting
from claudemesh.peer.cards import CardDirectory
from claudemesh.peer.journal import Journal, outbox
from claudemesh.peer.journal.outbox import OutboxRow, SealedRow
from claudemesh.peer.keyring import Keyring
from claudemesh.peer.line import Line
from claudemesh.peer.link_clock import LinkClock
from claudemesh.peer.membership import Membership
from claudemesh.peer.presence import PresenceView
from claudemesh.peer.pump import Flight, Pump, save_attestations
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.sealing import Destination, Sender, seal_row
from claudemesh.peer.session import Sessions
from claudemesh.peer.settling import Acceptance, Settled, write_accepted, write_end
from claudemesh.peer.tracking import Tracker
from claudemesh.protocol import delivery
from claudemesh.protocol.delivery import Action, Claim, Event, Outcome, Stage, Witness
from claudemesh.types import BoxId, BrokerId, Digest

SEAL_BATCH: Final = 32
"""Envelopes sealed (about 150 µs each) before other tasks get a turn."""


class _Batch(NamedTuple):
    """Rows that a broker accepted, by which of its statements."""

    answers: list[Acceptance]
    rows: list[Settled]


class Outgoing(Pump[OutboxRow]):
    """Submits the outbox of one peer."""

    def __init__(
        self,
        membership: Membership,
        cards: CardDirectory,
        presence: PresenceView,
        keyring: Keyring,
        sessions: Sessions,
        attesting: Attesting,
        journal: Journal,
        tracker: Tracker,
        clock: LinkClock,
        runtime: Runtime,
    ) -> None:
        super().__init__(runtime, lambda: membership.frozen is not None)
        self._membership = membership
        self._cards = cards
        self._presence = presence
        self._keyring = keyring
        self._sessions = sessions
        self._attesting = attesting
        self._journal = journal
        self._tracker = tracker
        self._clock = clock
        self._settling: set[int] = set()
        """Rows that were accepted, while that is being recorded."""

    def begin_link(self, broker: BrokerId) -> None:
        """A new link to `broker`: nothing is in flight on it."""
        super().begin_link(broker)
        self._settling.clear()

    async def run(self, line: Line) -> None:
        """Submit on one open link whose roster is synced, until it ends."""
        while True:
            await self._until_woken_or_due()
            settled = self._take_answers()
            if settled is None:
                await self._submit_more(line)
                continue
            recording = asyncio.create_task(self._record_accepted(settled), name="accepted")
            try:
                await self._submit_more(line)  # what it seals shares a commit with what was accepted
            finally:
                await recording  # also when the link ends: who waits for these is told

    async def _submit_more(self, line: Line) -> None:
        await self._settle_refused(line)
        await self._resend_due(line)
        await self._fill(line)

    # Filling

    async def _fill(self, line: Line) -> None:
        """Bring rows from the journal into flight while there is room."""
        while not self._is_stopped():
            room = self._pace.allowance(self._runtime.now(), self._runtime.tempo.in_flight - len(self._flights))
            if room <= 0:
                return
            skip, limit = {flight.row.id for flight in self._flights.values()} | self._settling, min(room, SEAL_BATCH)
            rows = await self._journal.read(
                partial(
                    outbox.load_open,
                    mesh=self._membership.mesh,
                    skip=skip,
                    limit=limit,
                    agents=self.agents_may_send(),
                    full=self._full_now(),
                ),
                brief=True,
            )
            if not rows:
                return
            flights = [Flight(row, delivery.Sealed() if row.envelope else delivery.Queued()) for row in rows]
            for flight in flights:
                self._flights[flight.row.message_id, flight.row.peer] = flight
            await self._submit(line, [flight for flight in flights if not await self._ended_early(flight)])
            self._pace.spend(len(flights), self._runtime.now())
            if len(rows) < limit:
                return  # what was added meanwhile has woken this task again

    async def _ended_early(self, flight: Flight[OutboxRow]) -> bool:
        """Settle a row whose time or recipient is gone before it was sealed."""
        now = self._runtime.now()
        if flight.row.expires_at is not None and flight.row.expires_at < now:
            await self._step(flight, delivery.ExpiryPassed())
        elif not self._membership.roster.is_active(flight.row.peer):
            await self._step(flight, delivery.RecipientRemoved())
        return isinstance(flight.state, delivery.Settled)

    async def _submit(self, line: Line, flights: list[Flight[OutboxRow]]) -> None:
        """Seal what is not sealed, journal it, then transmit; in this order."""
        for flight in flights:
            if isinstance(flight.state, delivery.Sealed) and not await self._is_timely(line, flight.row):
                flight.state = delivery.Queued()  # its session's time is over: sealed anew, by a living one
        to_seal = [flight for flight in flights if isinstance(flight.state, delivery.Queued)]
        await self._look_up(line, to_seal)
        await self._attesting.renew_due(line)
        sealed = await self._seal(to_seal)
        ready = [flight for flight in flights if isinstance(flight.state, delivery.Sealed)]
        if sealed:

            def write(connection: sqlite3.Connection) -> None:
                save_attestations(connection, sealed)
                outbox.mark_sealed(connection, [_sealed(flight) for flight in sealed])

            size = sum(len(flight.row.envelope or b"") for flight in sealed)
            await self._journal.write(write, brief=size <= BRIEF_BYTES)
        for flight in sealed:
            await self._act(line, flight, delivery.EnvelopeSealed())
        for flight in ready:
            await self._act(line, flight, delivery.LinkOpened())

    async def _look_up(self, line: Line, flights: list[Flight[OutboxRow]]) -> None:
        """Fetch the cards and session keys that sealing needs and that were not fetched on this link."""
        unasked = self._cards.unasked(flight.row.peer for flight in flights)
        if unasked:
            await self._cards.refresh(line, unasked)
        for flight in flights:
            peer, session = flight.row.peer, flight.row.peer_session
            if (
                session is not None
                and peer != self._keyring.member
                and self._presence.session_box(peer, session) is None
            ):
                await self._presence.refresh(line)
                return

    async def _seal(self, flights: list[Flight[OutboxRow]]) -> list[Flight[OutboxRow]]:
        head = self._membership.head
        if head is None:
            raise Unreachable("link_lost", "no signed head yet")
        sender = Sender(self._membership.mesh, self._keyring.member, self._keyring.current.cs, head)
        sealed = []
        for flight in flights:
            try:
                self._seal_one(flight, sender)
            except Invalid as error:
                await self._refuse(flight, error.code)
                continue
            sealed.append(flight)
        return sealed

    def _seal_one(self, flight: Flight[OutboxRow], sender: Sender) -> None:
        row = flight.row
        session = self._sessions.get(row.session) or self._sessions.main
        if flight.session is not session or flight.counter == 0:
            flight.session, flight.counter = session, session.next_counter(row.peer)
        to = self._destination(row)
        frame = seal_row(row, sender, session, to, flight.counter, self._runtime.entropy(24), self._clock.now())
        flight.row = row._replace(envelope=frame, attestation=session.attestation.digest, counter=flight.counter)

    def _destination(self, row: OutboxRow) -> Destination:
        """The addressed session's key while that session is known to live, else the peer's."""
        if row.peer_session is not None and not row.resealed:
            own = self._sessions.get(row.peer_session) if row.peer == self._keyring.member else None
            box = own.attestation.box if own is not None else self._presence.session_box(row.peer, row.peer_session)
            if box is not None:
                return Destination(box, row.peer_session)
        if row.peer == self._keyring.member:
            return Destination(BoxId(self._keyring.current.box))
        return Destination(self._cards.box_of(row.peer))

    # Steps

    async def _act(self, line: Line, flight: Flight[OutboxRow], event: Event) -> None:
        """Step a flight, and transmit where that says so."""
        flight.state, actions = delivery.step(flight.state, event, self._runtime.now())
        if Action.TRANSMIT not in actions:
            return
        assert flight.row.envelope is not None
        await self._transmit(line, flight.row.envelope)

    async def _is_timely(self, line: Line, row: OutboxRow) -> bool:
        """Whether a sealed envelope may go out as it is: its attestation holds, and the broker knows it."""
        return row.attestation is not None and await self._attesting.is_published(line, Digest(row.attestation))

    async def _resend_due(self, line: Line) -> None:
        if self._is_stopped():
            return
        due = self._due()
        for flight in due:
            await self._act(line, flight, delivery.Ticked())
        self._pace.spend(len(due), self._runtime.now())

    async def _step(self, flight: Flight[OutboxRow], event: Event, detail: str = "") -> None:
        """Step a flight to an end that this machine or the broker states without a signature."""
        flight.state, actions = delivery.step(flight.state, event, self._runtime.now())
        if Action.REPORT not in actions or not isinstance(flight.state, delivery.Settled):
            return
        outcome, expires_at = flight.state.outcome, flight.row.expires_at
        if expires_at is not None and expires_at <= self._runtime.now():
            outcome = Outcome.EXPIRED  # a broker does not take what is over, and has no code of its own for it
        if outcome is Outcome.EXPIRED:
            claim, detail = Claim(Stage.EXPIRED, Witness.SENDER), ""
        elif isinstance(event, delivery.BrokerRefused):
            claim = Claim(Stage.REFUSED, Witness.BROKER)
        else:
            claim, detail = Claim(Stage.REFUSED, Witness.SENDER), "unknown_peer"
        await self._end(flight, outcome, claim, detail)

    async def _end(self, flight: Flight[OutboxRow], outcome: Outcome, claim: Claim, detail: str) -> None:
        row, mesh, now = flight.row, self._membership.mesh, self._runtime.now()
        signer = self._broker if claim.witness is Witness.BROKER else self._keyring.member
        recorded = await self._journal.write(
            lambda connection: write_end(connection, mesh, row, outcome, claim, detail, signer, now), brief=True
        )
        self._tracker.record([recorded])
        self._flights.pop((row.message_id, row.peer), None)

    async def _refuse(self, flight: Flight[OutboxRow], code: str) -> None:
        """This machine cannot seal it: the recipient's key is unusable."""
        await self._end(flight, Outcome.REFUSED, Claim(Stage.REFUSED, Witness.SENDER), code)

    # Answers

    def _take_answers(self) -> _Batch | None:
        """Take every `accepted` that arrived since the last commit out of flight."""
        answers, self._answers = self._answers, []
        rows: list[Settled] = []
        for index, answer in enumerate(answers):
            for stored in answer.body["r"]:
                flight = self._flights.get((stored["id"], stored.get("to", "")))
                if flight is None:
                    continue
                flight.state, actions = delivery.step(flight.state, delivery.BrokerAccepted(), self._runtime.now())
                if Action.REPORT in actions:
                    rows.append(Settled(index, flight.row))
                    del self._flights[flight.row.message_id, flight.row.peer]
                    self._settling.add(flight.row.id)
        return _Batch(answers, rows) if rows else None

    async def _record_accepted(self, settled: _Batch) -> None:
        """Record what was accepted, in one transaction."""
        mesh, now = self._membership.mesh, self._runtime.now()
        recorded = await self._journal.write(
            lambda connection: write_accepted(connection, mesh, settled.answers, settled.rows, now), brief=True
        )
        self._tracker.record(recorded)
        self._pace.speed_up(len(settled.rows))
        self._settling.difference_update(one.row.id for one in settled.rows)

    async def _settle_refused(self, line: Line) -> None:
        resubmit: list[Flight[OutboxRow]] = []
        for flight, refused in self._take_refusals():
            await self._step(flight, refused, refused.code)
            self._put_back(flight, refused.code)
            if isinstance(flight.state, delivery.Queued):
                resubmit.append(flight)
        if resubmit:
            await self._refresh_and_reseal(line, resubmit)

    async def _refresh_and_reseal(self, line: Line, flights: list[Flight[OutboxRow]]) -> None:
        """The roster or a card moved on: fetch both, then seal under the same ids."""
        await self._membership.catch_up(line)
        await self._cards.refresh(line, {flight.row.peer for flight in flights})
        await self._submit(line, self._to_reseal(flights))


def _sealed(flight: Flight[OutboxRow]) -> SealedRow:
    row = flight.row
    assert row.attestation is not None
    assert row.counter is not None
    assert row.envelope is not None
    return SealedRow(row.id, row.attestation, row.counter, row.envelope)
