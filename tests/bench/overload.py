"""overload_p99_ms: twice as many messages as the broker can carry, and how late those are that it admits."""

import asyncio
import time
from functools import partial

import msgspec
import uvloop

from claudemesh.broker.policy import Limits
from tests.bench import lanes, load, processes, routing
from tests.bench.bench_mesh import BenchMesh, Speaker
from tests.bench.load import Lane
from tests.bench.processes import Server
from tests.bench.report import Figure

LINKS = 100
FACTOR = 2
SECONDS = 4
SLICES = 3
QUIET_S = 1.0
_TICK_S = 0.001


class _Refusal(msgspec.Struct):
    id: str = ""
    code: str = ""
    retry_after_ms: int | None = None


class Overloaded(msgspec.Struct):
    """What came of one overload."""

    offered_per_s: float
    late_ms: list[float]
    """From write to push, of those that were admitted; sorted."""
    refused: int
    held_back: int
    """Never written, because their link had been asked to come again later."""
    without_retry: int
    """Refusals that do not say when to come again."""
    lost: int
    """Neither refused nor delivered."""


def measure() -> dict[str, Figure]:
    """The sustainable rate, then twice as much."""
    return uvloop.run(_measure())


async def _measure() -> dict[str, Figure]:
    with processes.directory() as path, processes.broker(path, limits=routing.NO_LIMITS) as broker:
        mesh, to_broker = await _opened(broker)
        await routing.closed(to_broker, *mesh, routing.WARM_UP_PER_LINK)
        messages = routing.MESSAGES_PER_LINK
        sustainable = (
            messages * LINKS / await routing.closed(to_broker, *mesh, messages, partial(routing.until_deleted, path))
        )
        lanes.close(to_broker)
    usual = {"answer_within_ms": Limits().answer_within_ms}
    with processes.directory() as path, processes.broker(path, limits=routing.NO_LIMITS | usual) as broker:
        mesh, to_broker = await _opened(broker)
        memory, found = [], []
        for _ in range(SLICES):
            routing.load_frames(to_broker, *mesh, int(FACTOR * sustainable * SECONDS / LINKS))
            found.append(await _overload(to_broker, FACTOR * sustainable))
            memory.append(round(broker.rss_bytes / 1e6, 1))
        lanes.close(to_broker)
    return _figures(sustainable, found, memory)


async def _opened(broker: Server) -> tuple[tuple[BenchMesh, list[Speaker]], list[Lane]]:
    mesh = await lanes.found_on(broker.url, LINKS)
    speakers = [mesh.speaker(index) for index in range(LINKS)]
    return (mesh, speakers), await lanes.member_lanes(broker.url, mesh, speakers)


async def _overload(to_broker: list[Lane], per_s: float) -> Overloaded:
    """Write on a schedule whatever the broker does, except where it has asked a link to come again later."""
    senders = [_Sender(lane) for lane in to_broker]
    count = len(to_broker[0].frames) * len(senders)
    scheduled = 0
    with load.quiet_collector():
        started = time.perf_counter()
        while scheduled < count:
            now = time.perf_counter()
            due = min(count, int((now - started) * per_s) + 1)
            for at in range(scheduled, due):
                senders[at % LINKS].offer(at // LINKS, now)
            scheduled = due
            await asyncio.sleep(_TICK_S)
        offered = count / (time.perf_counter() - started)
        await _quiet(to_broker)
    for sender in senders:
        sender.listen(time.perf_counter())
    written = {message: at for sender in senders for message, at in sender.written.items()}
    late = sorted(
        (arrived - written[one]) * 1_000
        for lane in to_broker
        for one, arrived in zip(lane.delivered, lane.arrived_at, strict=True)
    )
    return Overloaded(
        offered_per_s=offered,
        late_ms=late,
        refused=sum(sender.refused for sender in senders),
        held_back=sum(sender.held_back for sender in senders),
        without_retry=sum(sender.without_retry for sender in senders),
        lost=len(written) - sum(sender.refused for sender in senders) - len(late),
    )


class _Sender:
    """One link that keeps to what it is told: after a refusal it writes nothing before the time to come again."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.written: dict[str, float] = {}
        self.refused = self.held_back = self.without_retry = 0
        self._not_before = 0.0
        lane.sent = len(lane.frames)  # it is written here, not as answers come

    def offer(self, number: int, now: float) -> None:
        """The moment of a message has come."""
        self.listen(now)
        if now < self._not_before:
            self.held_back += 1
            return
        message, frame = self.lane.frames[number]
        self.lane.link.write(frame)
        self.written[message] = now

    def listen(self, now: float) -> None:
        """Read the refusals that have come."""
        others, self.lane.others = self.lane.others, []
        for frame in others:
            if b'"refused"' not in frame[:24]:
                continue  # such as who has joined
            refusal = msgspec.json.decode(frame, type=_Refusal)
            self.refused += 1
            self.without_retry += refusal.retry_after_ms is None
            self._not_before = max(self._not_before, now + (refusal.retry_after_ms or 0) / 1_000)


async def _quiet(to_broker: list[Lane]) -> None:
    """Return once nothing has arrived for a while."""
    seen, since = -1, time.perf_counter()
    while time.perf_counter() - since < QUIET_S:
        now_seen = sum(len(lane.delivered) + len(lane.others) for lane in to_broker)
        if now_seen != seen:
            seen, since = now_seen, time.perf_counter()
        await asyncio.sleep(0.01)


def _figures(sustainable: float, found: list[Overloaded], memory: list[float]) -> dict[str, Figure]:
    lost, silent = sum(one.lost for one in found), sum(one.without_retry for one in found)
    if lost or silent:
        raise load.MessageLost(f"{lost} neither refused nor delivered, {silent} refused without a time to come again")
    worst = max(found, key=lambda one: one.late_ms[int(len(one.late_ms) * 0.99)])
    late = worst.late_ms
    share = len(late) / (len(late) + worst.refused + worst.held_back)
    offered = f"{worst.offered_per_s:,.0f}/s offered, {sustainable:,.0f}/s sustainable"
    admitted = f"{share:.0%} admitted, p50 {late[len(late) // 2]:.0f} ms"
    refused = f"{worst.refused:,} refused with a retry-after, which the links obey"
    note = f"the worst of {SLICES} × {SECONDS} s; {offered}; {admitted}; {refused}"
    return {
        "overload_p99_ms": Figure(late[int(len(late) * 0.99)], "ms", note=note),
        "overload_rss_growth_mb": Figure(memory[-1] - memory[0], "MB", note=f"after the first and the last: {memory}"),
    }
