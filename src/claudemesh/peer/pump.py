"""What the two pumps of a link share: rows in flight, the broker's answers that wait for them, pace, and when to look.

`outgoing` submits direct messages and `posting` posts; each fills and seals in its own way.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from claudemesh.errors import Refused
from claudemesh.peer.journal import keys
from claudemesh.peer.journal.outbox import OutboxRow
from claudemesh.peer.journal.posts import PostRow
from claudemesh.peer.line import Line
from claudemesh.peer.pacing import Pace
from claudemesh.peer.runtime import Runtime
from claudemesh.peer.session import Session
from claudemesh.peer.settling import Acceptance
from claudemesh.protocol import delivery, limits
from claudemesh.protocol.delivery import State
from claudemesh.protocol.messages import Refused as RefusedMessage
from claudemesh.types import BrokerId, UnixMillis

MAX_RESEALS: Final = 3
PAUSE_MS: Final = 1_000
"""Before what cannot be sealed now is tried again."""

Row = TypeVar("Row", OutboxRow, PostRow)


@dataclass(slots=True)
class Flight(Generic[Row]):
    """One row that is being submitted."""

    row: Row
    state: State
    session: Session | None = None
    """The session that sealed it, while that session lives."""
    counter: int = 0
    reseals: int = 0

    @property
    def due_at(self) -> UnixMillis | None:
        """When it is transmitted again, while no answer comes."""
        match self.state:
            case delivery.InFlight(resend_at=due) | delivery.Waiting(retry_at=due):
                return due
            case _:
                return None


class Pump(Generic[Row]):
    """One task per link that submits rows of the journal; what is in flight is forgotten when the link ends."""

    def __init__(self, runtime: Runtime, is_stopped: Callable[[], bool]) -> None:
        """`is_stopped` says that nothing is submitted now: the mesh is frozen."""
        self._runtime = runtime
        self._is_stopped = is_stopped
        self._broker = BrokerId("")
        self._flights: dict[tuple[str, str], Flight[Row]] = {}
        """By message id, and the peer or channel it goes to."""
        self._full: dict[str, UnixMillis] = {}
        """Peers and channels that there was no room for, and until when nothing is submitted to them."""
        self._answers: list[Acceptance] = []
        self._refusals: list[RefusedMessage] = []
        self._wake = asyncio.Event()
        self._pace = Pace()
        self.agents_may_send: Callable[[], bool] = lambda: True
        """Whether what agents wrote is submitted too."""

    def wake(self) -> None:
        """There may be something to submit."""
        self._wake.set()

    def take_accepted(self, answer: Acceptance) -> None:
        """The broker stored envelopes, by its verified statement."""
        self._answers.append(answer)
        self._wake.set()

    def take_refused(self, message: RefusedMessage) -> None:
        """The broker refused an envelope."""
        self._refusals.append(message)
        self._wake.set()

    def begin_link(self, broker: BrokerId) -> None:
        """A new link to `broker`: nothing is in flight on it."""
        self._broker = broker
        self._flights.clear()
        self._answers.clear()
        self._refusals.clear()
        self._full.clear()
        self._pace = Pace()
        self._wake.set()

    async def _transmit(self, line: Line, frame: bytes) -> None:
        """Nothing leaves in a frozen mesh, though it was on its way; what is in flight is due again when it is not."""
        if not self._is_stopped():
            await line.post_frame(frame)

    async def _until_woken_or_due(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._until_due_s()):
                await self._wake.wait()
        self._wake.clear()

    def _until_due_s(self) -> float:
        now = self._runtime.now()
        if self._is_stopped():
            return limits.RESEND_AFTER_MS / 1000
        dues = [due for flight in self._flights.values() if (due := flight.due_at) is not None]
        dues += [until for until in self._full.values() if until > now]
        wait_ms = min(dues) - now if dues else limits.RESEND_AFTER_MS
        allowed_at = self._pace.next_at()
        if allowed_at is not None:
            wait_ms = max(wait_ms, allowed_at - now) if dues else min(wait_ms, max(allowed_at - now, PAUSE_MS))
        return max(wait_ms, 1) / 1000

    def _due(self) -> list[Flight[Row]]:
        """Flights whose time has come, as many as the pace allows."""
        now = self._runtime.now()
        due = [flight for flight in self._flights.values() if (flight.due_at or now + 1) <= now]
        return due[: self._pace.allowance(now, len(due))]

    def _full_now(self) -> list[str]:
        """Whom there is no room for yet; the rows that wait for them take no place of those for others."""
        now = self._runtime.now()
        self._full = {to: until for to, until in self._full.items() if until > now}
        return list(self._full)

    def _put_back(self, flight: Flight[Row], code: str) -> None:
        """Leave what met a full mailbox to the journal until its time comes, and the others behind it with it."""
        if code == "mailbox_full" and isinstance(flight.state, delivery.Waiting):
            self._full[flight.row.to] = flight.state.retry_at
            self._flights.pop((flight.row.message_id, flight.row.to), None)

    def _take_refusals(self) -> list[tuple[Flight[Row], delivery.BrokerRefused]]:
        """What the broker refused of what is in flight; the pace slows down once, however many were refused."""
        refusals, self._refusals = self._refusals, []
        refused = []
        slowest_ms = 0
        for message in refusals:
            flight = self._flights.get((str(message.id), str(message.to or message.chan)))
            if flight is None or not isinstance(flight.state, delivery.InFlight):
                continue
            event = delivery.BrokerRefused(
                message.code if message.code in Refused.CODES else "invalid", message.retry_after_ms
            )
            if event.code == "rate_limited":
                slowest_ms = max(slowest_ms, event.retry_after_ms or delivery.RETRY_DEFAULT_MS)
            refused.append((flight, event))
        if slowest_ms:
            self._pace.slow_down(self._runtime.now(), slowest_ms)
        return refused

    def _to_reseal(self, flights: list[Flight[Row]]) -> list[Flight[Row]]:
        """Those to seal again at once; a broker that is never satisfied does not make this peer spin."""
        for flight in flights:
            flight.reseals += 1
            if flight.reseals > MAX_RESEALS:
                flight.state = delivery.Waiting(UnixMillis(self._runtime.now() + PAUSE_MS))
        return [flight for flight in flights if flight.reseals <= MAX_RESEALS]


def save_attestations(connection: sqlite3.Connection, flights: Iterable[Flight[Row]]) -> None:
    """Keep the attestations of the sessions that sealed these: their envelopes may go out after a restart."""
    for session in {flight.session.id: flight.session for flight in flights if flight.session is not None}.values():
        known = session.attestation
        keys.save_attestation(connection, known.mesh, known.digest, known.expires_at, session.statement)
