"""The load generator: links with ready-made frames, driven in a closed or an open loop.

A closed loop keeps a fixed number of messages per link unanswered and shows how many a server takes. An
open loop sends on a schedule, whatever the server does, and shows how long each takes; its clock starts at
the scheduled moment, so a stall is charged to every message that it delays. Nothing is taken on trust: after
the clock stops, every id must have been accepted once and pushed once, to the right link.
"""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from tests.bench.raw_link import RawLink, client_frame

STALL_S = 20.0
_TICK_S = 0.001


class _Envelope(msgspec.Struct):
    id: str


class _Delivery(msgspec.Struct):
    q: int
    e: _Envelope | None = None


class Push(msgspec.Struct):
    """What the generator reads of a `push`."""

    d: list[_Delivery]


class _Statement(msgspec.Struct):
    b: str


class Accepted(msgspec.Struct):
    """What the generator reads of an `accepted`, after the clock."""

    st: _Statement


class _Row(msgspec.Struct):
    id: str
    to: str


class AcceptedBody(msgspec.Struct):
    """The rows that an `accepted` vouches for."""

    r: list[_Row]


class MessageLost(Exception):
    """A message was not accepted, not delivered, delivered twice or delivered to somebody else."""


_push_decoder = msgspec.json.Decoder(Push)
_accepted_decoder = msgspec.json.Decoder(Accepted)
_body_decoder = msgspec.json.Decoder(AcceptedBody)


@dataclass(slots=True)
class Lane:
    """One link's part of a load: what it sends, and what arrived."""

    peer: str
    link: RawLink
    frames: list[tuple[str, bytes]] = field(default_factory=list)
    sent: int = 0
    answered: int = 0
    window: int = 0
    acknowledged: int = 0
    accepted: list[bytes] = field(default_factory=list)
    delivered: list[str] = field(default_factory=list)
    arrived_at: list[float] = field(default_factory=list)
    others: list[bytes] = field(default_factory=list)

    def on_frames(self, frames: list[bytes]) -> None:
        """Read what one read brought: count answers, acknowledge deliveries, keep the window full."""
        numbers: list[int] = []
        for frame in frames:
            kind = frame[6:10]
            if kind == b"push":
                for delivery in _push_decoder.decode(frame).d:
                    numbers.append(delivery.q)
                    self.delivered.append(delivery.e.id if delivery.e else "a notice")
                    self.arrived_at.append(time.perf_counter())
            elif kind == b"acce":
                self.accepted.append(frame)
                self.answered += frame.count(b'\\"id\\"')
            else:
                self.others.append(frame)
        for start in range(0, len(numbers), 256):
            self.link.write(client_frame(b'{"t":"ack","q":%b}' % msgspec.json.encode(numbers[start : start + 256])))
        self.acknowledged += len(numbers)
        self.fill()

    def fill(self) -> None:
        """Send until `window` messages are unanswered."""
        until = min(self.answered + self.window, len(self.frames))
        if until > self.sent:
            self.link.write(b"".join([frame for _, frame in self.frames[self.sent : until]]))
            self.sent = until


async def run_closed(lanes: list[Lane], window: int) -> float:
    """Send everything with `window` unanswered messages per link; seconds until all is acknowledged."""
    expected = sum(len(lane.frames) for lane in lanes)
    with quiet_collector():
        started = time.perf_counter()
        for lane in lanes:
            lane.window = window
            lane.fill()
        await _settle(lanes, expected, expected)
        finished = max(at for lane in lanes for at in lane.arrived_at[-1:])
    return finished - started


async def run_fan_out(lanes: list[Lane]) -> float:
    """Send the one frame of the first lane; seconds until every other lane has it."""
    with quiet_collector():
        started = time.perf_counter()
        lanes[0].window = 1
        lanes[0].fill()
        await _settle(lanes, answers=1, deliveries=len(lanes) - 1)
        finished = max(at for lane in lanes for at in lane.arrived_at[-1:])
    return finished - started


async def run_to_offline(lanes: list[Lane], window: int) -> None:
    """Send everything to recipients that are not connected; returns when all is accepted."""
    for lane in lanes:
        lane.window = window
        lane.fill()
    await _settle(lanes, sum(len(lane.frames) for lane in lanes), deliveries=0)


async def run_open(lanes: list[Lane], per_s: int) -> list[float]:
    """Send everything at `per_s`, one lane after the other; milliseconds from schedule to push, sorted."""
    order = [frame for turn in zip(*(lane.frames for lane in lanes), strict=True) for frame in turn]
    writers = [lane.link.write for lane in lanes]
    for lane in lanes:
        lane.sent = len(lane.frames)
    with quiet_collector():
        started = time.perf_counter() + 0.01
        sent = 0
        while sent < len(order):
            due = min(len(order), int((time.perf_counter() - started) * per_s) + 1)
            for at in range(sent, due):
                writers[at % len(writers)](order[at][1])
            sent = max(sent, due)
            await asyncio.sleep(_TICK_S)
        await _settle(lanes, len(order), len(order))
    scheduled = {message: started + at / per_s for at, (message, _) in enumerate(order)}
    pairs = ((at, scheduled[one]) for lane in lanes for one, at in zip(lane.delivered, lane.arrived_at, strict=True))
    return sorted((arrived - due) * 1_000 for arrived, due in pairs)


def check(lanes: list[Lane], recipients: dict[str, str]) -> None:
    """Require that each message was accepted once and delivered once, to its recipient.

    Args:
        recipients: Message id to peer.

    Raises:
        MessageLost: What is wrong, in counts.
    """
    _require_no_refusal(lanes)
    accepted: Counter[tuple[str, str]] = Counter()
    for lane in lanes:
        for frame in lane.accepted:
            body = _accepted_decoder.decode(frame).st.b
            accepted.update((row.id, row.to) for row in _body_decoder.decode(body).r)
    delivered = Counter((one, lane.peer) for lane in lanes for one in lane.delivered)
    expected = Counter(recipients.items())
    for what, found in (("accepted", accepted), ("delivered", delivered)):
        if found != expected:
            missing, extra = expected - found, found - expected
            raise MessageLost(f"{what}: {missing.total()} missing, {extra.total()} too many")


def clear(lanes: list[Lane]) -> None:
    """Forget the last load."""
    for lane in lanes:
        lane.frames, lane.accepted, lane.delivered, lane.arrived_at, lane.others = [], [], [], [], []
        lane.sent = lane.answered = lane.acknowledged = lane.window = 0


async def _settle(lanes: list[Lane], answers: int, deliveries: int) -> None:
    """Wait until as many messages are answered and acknowledged; a stall or a lost link raises."""
    progress, since = -1, time.perf_counter()
    while True:
        acknowledged = sum(lane.acknowledged for lane in lanes)
        answered = sum(lane.answered for lane in lanes)
        if acknowledged >= deliveries and answered >= answers:
            return
        if acknowledged + answered != progress:
            progress, since = acknowledged + answered, time.perf_counter()
        _require_no_refusal(lanes)
        lost = next((lane.link.lost for lane in lanes if lane.link.lost), None)
        if lost or time.perf_counter() - since > STALL_S:
            raise MessageLost(f"{answered} answered, {acknowledged} delivered of {answers}: {lost or 'no progress'}")
        await asyncio.sleep(0.005)


def _require_no_refusal(lanes: list[Lane]) -> None:
    refused = [frame for lane in lanes for frame in lane.others if frame[6:10] in (b"refu", b"clos")]
    if refused:
        raise MessageLost(f"{len(refused)} refused, the first: {refused[0][:200]!r}")


@contextmanager
def quiet_collector() -> Iterator[None]:
    """No garbage collection of the generator's while the clock runs."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
