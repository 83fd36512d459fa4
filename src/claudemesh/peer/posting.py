"""The pump of posts on one link: an epoch that the send rule allows, seal, journal, transmit, settle.

Beside `outgoing`, so that waiting for an epoch holds up no direct message. A sealed post is transmitted only while its
epoch may be used: what was sealed before a membership change that is known by now is sealed again.
"""

import sqlite3
from contextlib import suppress
from functools import partial
from typing import Final

from claudemesh.errors import EpochRefused, Invalid, Refused, RosterConflict, Unreachable
from claudemesh.peer.attesting import Attesting
from claudemesh.peer.epochs import Epochs
from claudemesh.peer.journal import Journal, posts
from claudemesh.peer.journal.posts import PostRow, SealedPost
from claudemesh.peer.keyring import Keyring
from claudemesh.peer.line import Line
from claudemesh.peer.link_clock import LinkClock
from claudemesh.peer.membership import Membership
from claudemesh.peer.post_sealing import seal_post
from claudemesh.peer.pump import PAUSE_MS, Flight, Pump, save_attestations
from claudemesh.peer.rotating import Rotator
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.sealing import Sender
from claudemesh.peer.session import Sessions
from claudemesh.peer.settling import Settled, write_accepted, write_end
from claudemesh.peer.tracking import Tracker
from claudemesh.protocol import delivery, limits
from claudemesh.protocol.confirmation import is_confirmed
from claudemesh.protocol.delivery import Claim, Outcome, Stage, Witness
from claudemesh.protocol.epochs import HeldEpoch
from claudemesh.types import ChannelId, PeerId, UnixMillis

IN_FLIGHT: Final = 64
SEAL_BATCH: Final = 16
"""Posts sealed before other tasks get a turn."""


class Posting(Pump[PostRow]):
    """Submits the posts of one peer."""

    def __init__(
        self,
        membership: Membership,
        keyring: Keyring,
        sessions: Sessions,
        attesting: Attesting,
        epochs: Epochs,
        rotator: Rotator,
        journal: Journal,
        tracker: Tracker,
        clock: LinkClock,
        runtime: Runtime,
    ) -> None:
        super().__init__(runtime, lambda: membership.frozen is not None)
        self._membership = membership
        self._keyring = keyring
        self._sessions = sessions
        self._attesting = attesting
        self._epochs = epochs
        self._rotator = rotator
        self._journal = journal
        self._tracker = tracker
        self._clock = clock

    async def run(self, line: Line) -> None:
        """Submit on one open link whose roster is synced, until it ends."""
        await self._rotator.publish_again(line)
        while True:
            await self._until_woken_or_due()
            await self._settle_accepted()
            await self._settle_refused(line)
            if not self._is_stopped():
                await self._resubmit_due(line)
                await self._fill(line)

    # Submitting

    async def _fill(self, line: Line) -> None:
        """Bring posts from the journal into flight while there is room."""
        while True:
            room = self._pace.allowance(self._runtime.now(), IN_FLIGHT - len(self._flights))
            if room <= 0:
                return
            skip = {flight.row.id for flight in self._flights.values()}
            rows = await self._journal.read(
                partial(
                    posts.load_open,
                    mesh=self._membership.mesh,
                    skip=skip,
                    limit=min(room, SEAL_BATCH),
                    agents=self.agents_may_send(),
                    full=self._full_now(),
                )
            )
            if not rows:
                return
            flights = [Flight(row, delivery.Sealed() if row.envelope else delivery.Queued()) for row in rows]
            for flight in flights:
                self._flights[flight.row.message_id, flight.row.channel] = flight
            await self._submit(line, flights)
            self._pace.spend(len(flights), self._runtime.now())

    async def _resubmit_due(self, line: Line) -> None:
        await self._submit(line, self._due())

    async def _submit(self, line: Line, flights: list[Flight[PostRow]]) -> None:
        """Transmit what may be transmitted as it is; seal the rest under an epoch that may be used, then that too."""
        await self._attesting.renew_due(line)
        living = [flight for flight in flights if not await self._ended_early(flight)]
        stale = [flight for flight in living if not self._is_current(flight)]
        by_scope: dict[ChannelId, list[Flight[PostRow]]] = {}
        for flight in stale:
            by_scope.setdefault(self._membership.roster.scope_of(flight.row.channel), []).append(flight)
        sealed = [one for scope, group in by_scope.items() for one in await self._seal(line, scope, group)]
        if sealed:
            await self._save(sealed)
        unsealed = {id(flight) for flight in stale} - {id(flight) for flight in sealed}
        for flight in living:
            if id(flight) in unsealed or flight.row.envelope is None:
                continue
            flight.state = delivery.InFlight(UnixMillis(self._runtime.now() + limits.RESEND_AFTER_MS))
            await self._transmit(line, flight.row.envelope)

    def _is_current(self, flight: Flight[PostRow]) -> bool:
        """Whether a sealed post may be transmitted as it is: its epoch may be used, and its session lives."""
        row = flight.row
        if row.envelope is None or row.epoch is None or isinstance(flight.state, delivery.Queued):
            return False
        usable = self._epochs.usable(self._membership.roster.scope_of(row.channel))
        held = self._epochs.find(row.epoch)
        if usable is None or held is None or held.record.roster_seq < usable.record.roster_seq:
            return False
        return any(session.attestation.digest == row.attestation for session in self._sessions.all())

    async def _ended_early(self, flight: Flight[PostRow]) -> bool:
        """Settle a post whose time is over, or whose channel this peer is not in any more."""
        row, roster = flight.row, self._membership.roster
        if row.expires_at is not None and row.expires_at < self._runtime.now():
            await self._end(flight, Outcome.EXPIRED, Claim(Stage.EXPIRED, Witness.SENDER), "")
            return True
        if not roster.was_in_channel_at(self._keyring.member, row.channel, roster.seq):
            await self._end(flight, Outcome.REFUSED, Claim(Stage.REFUSED, Witness.SENDER), "not_in_channel")
            return True
        return False

    async def _seal(self, line: Line, scope: ChannelId, flights: list[Flight[PostRow]]) -> list[Flight[PostRow]]:
        """Seal posts of one scope; those that cannot be sealed now wait, or end."""
        try:
            epoch = await self._rotator.epoch_for(line, scope)
        except (Refused, RosterConflict) as error:
            for flight in flights:
                flight.state = delivery.Waiting(UnixMillis(self._runtime.now() + (error.retry_after_ms or PAUSE_MS)))
            return []
        except EpochRefused as error:
            for flight in flights:
                await self._end(flight, Outcome.REFUSED, Claim(Stage.REFUSED, Witness.SENDER), error.code)
            return []
        sealed = []
        for flight in flights:
            try:
                self._seal_one(flight, epoch)
            except Invalid as error:
                await self._end(flight, Outcome.REFUSED, Claim(Stage.REFUSED, Witness.SENDER), error.code)
                continue
            sealed.append(flight)
        return sealed

    def _seal_one(self, flight: Flight[PostRow], epoch: HeldEpoch) -> None:
        head, row = self._membership.head, flight.row
        if head is None:
            raise Unreachable("link_lost", "no signed head yet")
        sender = Sender(self._membership.mesh, self._keyring.member, self._keyring.current.cs, head)
        session = self._sessions.get(row.session) or self._sessions.main
        if flight.session is not session or flight.counter == 0:
            flight.session, flight.counter = session, session.next_counter(row.channel)
        now = self._clock.now()
        frame = seal_post(row, sender, session, epoch, flight.counter, self._runtime.entropy(24), now)
        flight.row = row._replace(
            envelope=frame, attestation=session.attestation.digest, counter=flight.counter, epoch=epoch.id
        )
        flight.state = delivery.Sealed()

    async def _save(self, flights: list[Flight[PostRow]]) -> None:
        mesh = self._membership.mesh
        sealed = [(flight.row.message_id, _sealed(flight), self._recipients(flight.row)) for flight in flights]

        def write(connection: sqlite3.Connection) -> None:
            save_attestations(connection, flights)
            posts.mark_sealed(connection, mesh, sealed)

        await self._journal.write(write)

    def _recipients(self, row: PostRow) -> list[PeerId]:
        """Who may confirm a post: nobody where they are too many."""
        roster = self._membership.roster
        if row.internal or not is_confirmed(roster, row.channel):
            return []
        return sorted(roster.channel_members(row.channel) - {self._keyring.member})

    # Answers

    async def _settle_accepted(self) -> None:
        """Record every `accepted` that arrived since the last commit, in one transaction."""
        answers, self._answers = self._answers, []
        settled: list[Settled] = []
        for index, answer in enumerate(answers):
            for stored in answer.body["r"]:
                flight = self._flights.get((stored["id"], stored.get("chan", "")))
                if flight is not None:
                    settled.append(Settled(index, flight.row))
        if not settled:
            return
        mesh, now = self._membership.mesh, self._runtime.now()
        self._tracker.record(
            await self._journal.write(lambda connection: write_accepted(connection, mesh, answers, settled, now))
        )
        self._pace.speed_up(len(settled))
        for one in settled:
            self._flights.pop((one.row.message_id, one.row.to), None)

    async def _settle_refused(self, line: Line) -> None:
        again: list[Flight[PostRow]] = []
        for flight, refused in self._take_refusals():
            flight.state, _ = delivery.step(flight.state, refused, self._runtime.now())
            self._put_back(flight, refused.code)
            if isinstance(flight.state, delivery.Queued):
                again.append(flight)
            elif isinstance(flight.state, delivery.Settled):
                await self._end(flight, Outcome.REFUSED, Claim(Stage.REFUSED, Witness.BROKER), refused.code)
        if again:
            await self._reseal(line, again)

    async def _reseal(self, line: Line, flights: list[Flight[PostRow]]) -> None:
        """The roster moved on: fetch it, then seal under the same ids for whom it names now."""
        with suppress(RosterConflict):  # frozen now: the posts wait
            await self._membership.catch_up(line)
        await self._submit(line, self._to_reseal(flights))

    async def _end(self, flight: Flight[PostRow], outcome: Outcome, claim: Claim, detail: str) -> None:
        row, mesh, now = flight.row, self._membership.mesh, self._runtime.now()
        signer = self._broker if claim.witness is Witness.BROKER else self._keyring.member
        recorded = await self._journal.write(
            lambda connection: write_end(connection, mesh, row, outcome, claim, detail, signer, now)
        )
        self._tracker.record([recorded])
        self._flights.pop((row.message_id, row.channel), None)


def _sealed(flight: Flight[PostRow]) -> SealedPost:
    row = flight.row
    assert row.attestation is not None
    assert row.counter is not None
    assert row.epoch is not None
    assert row.envelope is not None
    return SealedPost(row.id, row.attestation, row.counter, row.epoch, row.envelope)
