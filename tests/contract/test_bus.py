"""The contract of a bus, for every one of them (docs/spec/cluster.md §3)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from claudemesh.broker.bus import nats as nats_bus
from claudemesh.broker.bus.base import (
    AnyHint,
    Bus,
    Gone,
    Moved,
    Said,
    Scheduled,
    Superseded,
    Waiting,
    decode_hint,
    encode_hint,
)
from claudemesh.broker.bus.local import Hub, LocalBus
from claudemesh.broker.bus.nats import NatsBus
from claudemesh.broker.store.base import LinkId
from claudemesh.crypto.statements import Statement
from claudemesh.types import BrokerId, MeshId, PeerId
from tests.nats_server import NatsServer, nats_server

BROKER = BrokerId("ab" * 32)
MESH = MeshId("11" * 32)
BOB, CAROL = PeerId("22" * 32), PeerId("33" * 32)
HINTS: list[AnyHint] = [
    Waiting(MESH, (BOB, CAROL)),
    Scheduled(),
    Moved(MESH),
    Said(MESH, BOB, Statement("{}", BROKER, "00" * 64)),
    Superseded(MESH, LinkId(7 << 32)),
    Gone(),
]
PATIENCE_S = 10.0
ATTEMPTS_PER_HOUR = 3_600

Cut = Callable[[], Awaitable[None]]


class Listener:
    """One node as its bus sees it."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.heard: list[AnyHint] = []

    async def hears(self, count: int) -> list[AnyHint]:
        """What came, once there are `count` hints."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.heard) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return self.heard


class Wires:
    """Where nodes connect, and how to cut them off and mend that."""

    def __init__(self, make: Callable[[], Bus], cut: Cut, mend: Cut) -> None:
        self.make, self.cut, self.mend = make, cut, mend
        self.buses: list[Bus] = []

    async def node(self) -> Listener:
        """One more node, connected."""
        listener = Listener(self.make())
        self.buses.append(listener.bus)
        await listener.bus.open(listener.heard.append)
        await connected(listener.bus)
        return listener


async def connected(bus: Bus, state: bool = True) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while bus.is_connected() is not state:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.1)  # NATS knows a subscription a moment after the connection


def local_wires() -> Wires:
    hub = Hub()

    async def set_cut(cut: bool) -> None:
        hub.is_cut = cut

    return Wires(lambda: LocalBus(hub), lambda: set_cut(True), lambda: set_cut(False))


@asynccontextmanager
async def nats_wires() -> AsyncIterator[Wires]:
    async with nats_server() as server:
        yield Wires(lambda: NatsBus(server.url, BROKER), server.kill, server.start)


@pytest.fixture(params=["local", "nats"])
async def wires(request: pytest.FixtureRequest) -> AsyncIterator[Wires]:
    if request.param == "local":
        made = local_wires()
        yield made
    else:
        async with nats_wires() as made:
            yield made
            for bus in made.buses:
                await bus.close()
            return
    for bus in made.buses:
        await bus.close()


async def test_every_other_node_gets_each_hint_once_and_in_order(wires: Wires) -> None:
    """One publisher's order holds; the publisher itself hears nothing."""
    first, second, third = await wires.node(), await wires.node(), await wires.node()

    for hint in HINTS:
        first.bus.publish(hint)

    assert await second.hears(len(HINTS)) == HINTS
    assert await third.hears(len(HINTS)) == HINTS
    assert first.heard == []


async def test_hints_are_dropped_while_there_is_no_connection_and_flow_again_after_it(wires: Wires) -> None:
    """Publishing never fails and keeps nothing for later."""
    first, second = await wires.node(), await wires.node()
    await wires.cut()
    await connected(first.bus, False)

    first.bus.publish(Scheduled())
    await wires.mend()
    await connected(first.bus)
    await connected(second.bus)
    first.bus.publish(Moved(MESH))

    assert await second.hears(1) == [Moved(MESH)]


async def test_publishing_before_open_and_after_close_does_nothing(wires: Wires) -> None:
    """A node that starts or stops may publish; close may come without open."""
    first, listener = Listener(wires.make()), await wires.node()

    first.bus.publish(Gone())
    await first.bus.close()
    first.bus.publish(Gone())
    await listener.bus.close()
    listener.bus.publish(Gone())

    assert not first.bus.is_connected()
    assert listener.heard == []


async def test_what_was_published_before_close_arrives(wires: Wires) -> None:
    """The last words of a node that stops are heard."""
    first, second = await wires.node(), await wires.node()

    first.bus.publish(Gone())
    await first.bus.close()

    assert await second.hears(1) == [Gone()]


async def test_a_node_opens_without_a_server_and_connects_when_there_is_one() -> None:
    """NATS may come up last."""
    server = NatsServer()
    first, second = (Listener(NatsBus(server.url, BROKER)) for _ in range(2))
    for one in (first, second):
        await one.bus.open(one.heard.append)
    before = first.bus.is_connected()

    await server.start()
    await connected(first.bus)
    await connected(second.bus)
    first.bus.publish(Scheduled())

    assert not before
    assert await second.hears(1) == [Scheduled()]
    for one in (first, second):
        await one.bus.close()
    await server.kill()


async def test_a_server_that_was_gone_for_an_hour_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour of attempts, one after the other without the second between: none is the last, and nothing piles up."""
    monkeypatch.setattr(nats_bus, "RECONNECT_AFTER_S", 0)
    attempts = 0

    async def gone(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        writer.transport.abort()

    async with nats_server() as server:
        first, second = (Listener(NatsBus(server.url, BROKER)) for _ in range(2))
        await first.bus.open(first.heard.append)
        await connected(first.bus)
        tasks = len(asyncio.all_tasks())
        await server.kill()
        async with await asyncio.start_server(gone, "127.0.0.1", server.port):
            while attempts < ATTEMPTS_PER_HOUR:
                first.bus.publish(Moved(MESH))
                await asyncio.sleep(0.01)
        grown = len(asyncio.all_tasks()) - tasks

        await server.start()
        await connected(first.bus)
        await second.bus.open(second.heard.append)
        await connected(second.bus)
        first.bus.publish(Scheduled())

        assert await second.hears(1) == [Scheduled()]
        assert grown <= 2
        for one in (first, second):
            await one.bus.close()


async def test_a_server_that_refused_a_node_for_a_while_gets_it_back() -> None:
    """A password that was wrong for a moment must not leave a node deaf until its restart."""
    async with nats_server() as server:
        first, second = (Listener(NatsBus(server.url, BROKER)) for _ in range(2))
        for one in (first, second):
            await one.bus.open(one.heard.append)
            await connected(one.bus)
        await server.kill()
        await server.start("--user", "somebody", "--pass", "else")
        await connected(first.bus, False)
        await asyncio.sleep(4)  # in which it is refused, more than once
        await server.kill()

        await server.start()
        await connected(first.bus)
        await connected(second.bus)
        first.bus.publish(Scheduled())

        assert await second.hears(1) == [Scheduled()]
        for one in (first, second):
            await one.bus.close()


async def test_a_frozen_server_counts_as_gone() -> None:
    """A connection through which nothing goes is noticed within seconds, not minutes."""
    async with nats_server() as server:
        one = Listener(NatsBus(server.url, BROKER))
        await one.bus.open(one.heard.append)
        await connected(one.bus)

        server.freeze()

        await connected(one.bus, False)
        await one.bus.close()


async def test_brokers_that_share_a_server_do_not_hear_each_other() -> None:
    """Subjects begin with the broker's key."""
    async with nats_server() as server:
        ours, same, other = (Listener(NatsBus(server.url, key)) for key in (BROKER, BROKER, BrokerId("cd" * 32)))
        for one in (ours, same, other):
            await one.bus.open(one.heard.append)
            await connected(one.bus)

        ours.bus.publish(Gone())

        assert await same.hears(1) == [Gone()]
        assert other.heard == []
        for one in (ours, same, other):
            await one.bus.close()


async def test_bytes_that_are_no_hint_are_ignored() -> None:
    """Whoever reaches the server can disturb nothing by what it sends."""
    async with nats_server() as server:
        ours, same = (NatsBus(server.url, BROKER) for _ in range(2))
        listener = Listener(same)
        for bus in (ours, same):
            await bus.open(listener.heard.append)
            await connected(bus)

        for raw in (b"", b"\xff", b'{"t":"unknown"}', b"[" * 5_000, b'{"t":"moved"}'):
            ours._unsent.put_nowait(raw)
        ours.publish(Gone())

        assert await listener.hears(1) == [Gone()]
        for bus in (ours, same):
            await bus.close()


@pytest.mark.parametrize("hint", HINTS, ids=lambda hint: type(hint).__name__)
def test_a_hint_is_the_same_after_the_wire(hint: AnyHint) -> None:
    """What one version of a node writes, it reads."""
    assert decode_hint(encode_hint(hint)) == hint
