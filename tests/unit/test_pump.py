"""What both pumps do with the broker's answers, whatever they submit."""

from typing import Any

import pytest

from claudemesh.peer.journal.posts import PostRow
from claudemesh.peer.pacing import Pace
from claudemesh.peer.pump import MAX_RESEALS, Flight, Pump
from claudemesh.peer.runtime import Runtime
from claudemesh.protocol import delivery
from claudemesh.protocol.delivery import Claim, Stage, Witness
from claudemesh.protocol.messages import Refused
from claudemesh.types import ChannelId, MessageId, UnixMillis

START = UnixMillis(1_000_000)
CHANNEL = ChannelId("c" * 32)


class Posts(Pump[PostRow]):
    """A pump with posts in flight."""

    def __init__(self, count: int, *, is_frozen: bool = False, now: UnixMillis = START) -> None:
        super().__init__(Runtime(now=lambda: now), lambda: is_frozen)
        for number in range(count):
            row = post(number)
            self._flights[row.message_id, row.channel] = Flight(row, delivery.InFlight(UnixMillis(START + 9_000)))

    @property
    def flights(self) -> list[Flight[PostRow]]:
        return list(self._flights.values())

    @property
    def until_due_s(self) -> float:
        return self._until_due_s()

    @property
    def pace(self) -> Pace:
        return self._pace

    def refused(self, *messages: Refused) -> list[str]:
        for message in messages:
            self.take_refused(message)
        return [event.code for _, event in self._take_refusals()]

    def to_reseal(self) -> list[Flight[PostRow]]:
        return self._to_reseal(self.flights)


def post(number: int) -> PostRow:
    unused: dict[str, Any] = dict.fromkeys(PostRow._fields)
    known = {"id": number, "message_id": MessageId(f"{number:032x}"), "channel": CHANNEL, "content_type": "text/plain"}
    shown = Claim(Stage.QUEUED, Witness.SENDER)
    return PostRow(**unused | known | {"stage": shown.stage, "witness": shown.witness})


def refusal(number: int, code: str, **more: Any) -> Refused:
    return Refused(code=code, id=f"{number:032x}", chan=CHANNEL, **more)


def test_many_refusals_at_once_slow_down_once() -> None:
    """Else a full window that is refused would end at the slowest pace there is."""
    once, often = Posts(1), Posts(64)
    once.refused(refusal(0, "rate_limited", retry_after_ms=20))
    often.refused(*(refusal(number, "rate_limited", retry_after_ms=20) for number in range(64)))

    assert often.pace.next_at() == once.pace.next_at()
    later = UnixMillis(START + 1_000)
    assert often.pace.allowance(later, 64) == once.pace.allowance(later, 64) > 1


@pytest.mark.parametrize(
    ("message", "codes"),
    [
        (refusal(0, "storage"), ["storage"]),
        (refusal(0, "made-up by a broker"), ["invalid"]),
        (refusal(7, "storage"), []),
        (Refused(code="storage", id=f"{0:032x}", chan="d" * 32), []),
    ],
    ids=["known code", "unknown code", "nothing in flight", "another channel"],
)
def test_a_refusal_is_about_what_is_in_flight(message: Refused, codes: list[str]) -> None:
    assert Posts(1).refused(message) == codes


def test_a_broker_that_is_never_satisfied_is_made_to_wait() -> None:
    pump = Posts(1)
    tries = [len(pump.to_reseal()) for _ in range(MAX_RESEALS + 1)]

    assert tries == [1] * MAX_RESEALS + [0]
    assert isinstance(pump.flights[0].state, delivery.Waiting)


def test_what_is_due_in_a_frozen_mesh_does_not_keep_the_pump_awake() -> None:
    """It may not go out, so a look at once would be one look after another."""
    later = UnixMillis(START + 60_000)

    assert Posts(1, now=later).until_due_s < 0.01
    assert Posts(1, now=later, is_frozen=True).until_due_s > 1


def test_what_met_a_full_mailbox_is_looked_at_when_its_time_has_come() -> None:
    """Until then it takes no place in flight."""
    pump = Posts(2)
    for message in (refusal(0, "mailbox_full", retry_after_ms=5_000), refusal(1, "storage", retry_after_ms=9_000)):
        pump.take_refused(message)
    for flight, event in pump._take_refusals():
        flight.state, _ = delivery.step(flight.state, event, START)
        pump._put_back(flight, event.code)

    assert [flight.row.id for flight in pump.flights] == [1]
    assert pump._full_now() == [CHANNEL]
    assert pump.until_due_s == 5
