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

    def __init__(self, count: int) -> None:
        super().__init__(Runtime(now=lambda: START))
        for number in range(count):
            row = post(number)
            self._flights[row.message_id, row.channel] = Flight(row, delivery.InFlight(UnixMillis(START + 9_000)))

    @property
    def flights(self) -> list[Flight[PostRow]]:
        return list(self._flights.values())

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
