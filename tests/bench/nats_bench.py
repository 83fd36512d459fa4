"""floor_nats_per_s: nats-server carrying the same frames between the same number of links, and nothing durable.

Each link publishes to the subjects of the others in turn and names a subject of its own for the answer; who gets a
message answers it with a few bytes. So a message crosses the server twice, as it does with an acknowledgement through
a broker. The links speak the protocol of NATS themselves: a client library would be what limits them.
"""

import asyncio
import statistics
import time
from typing import Any, Final

import uvloop

from tests.bench import load, processes
from tests.bench.report import Figure
from tests.bench.routing import LINKS, MESSAGES_PER_LINK, ROUNDS, WARM_UP_PER_LINK, WINDOW
from tests.nats_server import NatsServer, nats_server

FRAME_BYTES: Final = 2_200
"""What a frame with 1,296 bytes of ciphertext has."""
_STALL_S: Final = 20.0


class NatsLink(asyncio.Protocol):
    """One connection: takes what is addressed to it, and keeps so many of its own messages unanswered."""

    def __init__(self, number: int) -> None:
        self.received = self.answered = 0
        self._number = number
        self._buffer = b""
        self._transport: Any = None
        self._unsent: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(b'CONNECT {"verbose":false,"pedantic":false}\r\n')
        transport.write(b"SUB to.%d 1\r\nSUB re.%d 2\r\n" % (self._number, self._number))

    def send(self, count: int) -> None:
        """Send so many messages to the others in turn, `WINDOW` unanswered at most."""
        self.received = self.answered = 0
        body = b"x" * FRAME_BYTES
        others = [(self._number + 1 + at % (LINKS - 1)) % LINKS for at in range(count)]
        self._unsent = [b"PUB to.%d re.%d %d\r\n%b\r\n" % (to, self._number, FRAME_BYTES, body) for to in others]
        self._unsent.reverse()
        self._more(WINDOW)

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        at, answers, came = 0, [], 0
        while (end := data.find(b"\r\n", at)) >= 0:
            words = data[at:end].split()
            if words[:1] != [b"MSG"]:
                if words[:1] == [b"PING"]:
                    answers.append(b"PONG\r\n")
                at = end + 2
                continue
            size = int(words[-1])
            if len(data) < end + 4 + size:
                break
            at = end + 4 + size
            if words[2] == b"1":
                self.received += 1
                answers.append(b"PUB %b 2\r\nok\r\n" % words[3])
            else:
                came += 1
        self._buffer = data[at:]
        if answers:
            self._transport.write(b"".join(answers))
        self.answered += came
        self._more(came)

    def close(self) -> None:
        self._transport.abort()

    def _more(self, count: int) -> None:
        frames = [self._unsent.pop() for _ in range(min(count, len(self._unsent)))]
        if frames:
            self._transport.write(b"".join(frames))


def measure() -> dict[str, Figure]:
    """The closed loop of `durable_dm_per_s`, through nats-server."""
    return uvloop.run(_measure())


async def _measure() -> dict[str, Figure]:
    async with nats_server() as nats:
        links = [await _dial(nats, number) for number in range(LINKS)]
        await asyncio.sleep(0.2)  # the subscriptions have arrived
        await _round(links, WARM_UP_PER_LINK)
        rates, costs = [], []
        for _ in range(ROUNDS):
            used = processes.cpu_s(nats.pid)
            seconds = await _round(links, MESSAGES_PER_LINK)
            rates.append(LINKS * MESSAGES_PER_LINK / seconds)
            costs.append((processes.cpu_s(nats.pid) - used) / (LINKS * MESSAGES_PER_LINK) * 1e6)
        for link in links:
            link.close()
    note = f"nats-server, core, nothing stored; {statistics.median(costs):.0f} µs of its CPU per message; {LINKS} links"
    return {"floor_nats_per_s": Figure(statistics.median(rates), "msg/s", note=note)}


async def _dial(nats: NatsServer, number: int) -> NatsLink:
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(lambda: NatsLink(number), "127.0.0.1", nats.port)
    return link


async def _round(links: list[NatsLink], count: int) -> float:
    """Seconds until every message has arrived and is answered."""
    with load.quiet_collector():
        started = time.perf_counter()
        for link in links:
            link.send(count)
        while sum(link.answered for link in links) < LINKS * count:
            if time.perf_counter() - started > _STALL_S:
                raise load.MessageLost("messages through NATS are missing")
            await asyncio.sleep(0.002)
        took = time.perf_counter() - started
    if any(link.received != count for link in links):
        raise load.MessageLost("NATS has given messages to the wrong link")
    return took
