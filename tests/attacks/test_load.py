"""N08: what strangers can make a broker spend. The broker is a process of its own, so that its memory is its own."""

import asyncio
import contextlib
import json
import resource
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from claudemesh.protocol import limits, messages
from claudemesh.protocol.roster import Entry
from tests.attacks.wire_member import WireMember, dialled
from tests.attacks.wire_mesh import WireMesh, length_of_log
from tests.processes import BrokerProcess, start_broker

HALF_OPEN = 10_000
BATCH = 2_000
MEMORY_KIB = 150 << 10
"""How much more than at its start the broker may hold: generous, so that only a missing bound fails."""
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    with start_broker(tmp_path) as process:
        yield process


def resident_kib(broker: BrokerProcess) -> int:
    """Resident memory of the broker now."""
    assert broker.process is not None
    status = Path(f"/proc/{broker.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


@contextlib.contextmanager
def many_files() -> Iterator[None]:
    """As many sockets as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8_192), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def half_open(port: int, source: str) -> asyncio.StreamWriter | None:
    """Connect, ask for a WebSocket, and then say nothing."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        writer.write(UPGRADE)
        await writer.drain()
    except OSError:
        return None
    return writer


async def test_n08_ten_thousand_half_open_links_keep_nobody_out(broker: BrokerProcess) -> None:
    """N08: from forty addresses at once; a member still gets in, memory stays bounded, all of them are dropped."""
    mesh = await WireMesh(broker.url).found()
    before = resident_kib(broker)
    peak = before

    with many_files():
        for start in range(0, HALF_OPEN, BATCH):
            sources = [f"127.0.1.{1 + (start + number) % 40}" for number in range(BATCH)]
            links = await asyncio.gather(*(half_open(broker.port, source) for source in sources))
            if start % (4 * BATCH) == 0:
                assert await length_of_log(mesh.owner, mesh.url) == 1
            peak = max(peak, resident_kib(broker))
            for link in links:
                if link is not None:
                    link.transport.abort()

    assert peak - before < MEMORY_KIB
    assert await length_of_log(mesh.owner, mesh.url) == 1


async def test_n08_one_address_does_not_use_up_the_half_open_links(broker: BrokerProcess) -> None:
    """N08: beyond its share an address is dropped at once, and others are served meanwhile."""
    with many_files():
        links = [await half_open(broker.port, "127.0.2.1") for _ in range(600)]
        await asyncio.sleep(0.2)
        alive = sum(link is not None and not link.transport.is_closing() for link in links)

        async with dialled(broker.url) as stranger:
            challenge = await stranger.challenge()
        for link in links:
            if link is not None:
                link.transport.abort()

    assert challenge.nonce
    assert alive < 600


async def test_n08_frames_of_16_mib_are_not_kept(broker: BrokerProcess) -> None:
    """N08: before and after the handshake; memory stays bounded."""
    mesh = await WireMesh(broker.url).found()
    before = resident_kib(broker)
    huge = '{"t":"ping","x":"' + "x" * (16 << 20) + '"}'

    for _ in range(6):
        async with dialled(broker.url) as link:
            await link.challenge()
            with contextlib.suppress(ConnectionError):
                await link.send(huge)
    for _ in range(6):
        async with mesh.owner.dial(broker.url) as link:
            with contextlib.suppress(ConnectionError):
                await link.send(huge)

    assert resident_kib(broker) - before < MEMORY_KIB
    assert await length_of_log(mesh.owner, mesh.url) == 1


async def test_n08_a_large_roster_is_taken_within_its_limits(broker: BrokerProcess) -> None:
    """N08: thousands of entries come in frames of bounded size and number; more in one frame are refused."""
    before = resident_kib(broker)
    founder = WireMember("founder")
    async with dialled(broker.url) as link:
        genesis = founder.genesis((await link.challenge()).broker)
        founder.follow(genesis)
        assert await link.append(genesis) == ""
    link_holder = WireMember("member", founder.clock)
    link_holder.sign, link_holder.session = founder.sign, founder.session
    link_holder.follow(genesis)
    entries = _entries(founder, 2_000)
    answers = []
    async with link_holder.dial(broker.url) as link:
        for start in range(0, len(entries), limits.MAX_ENTRIES_PER_FRAME):
            answers.append(await link.append(*entries[start : start + limits.MAX_ENTRIES_PER_FRAME]))
    async with link_holder.dial(broker.url) as link:
        await link.send(messages.Append(rid=1, entries=entries[: limits.MAX_ENTRIES_PER_FRAME + 1]))
        too_many = await link.refusal()

    assert set(answers) == {""} or {answer.split()[0] for answer in answers if answer} == {"rate_limited"}
    assert "bad_frame" in too_many
    assert link_holder.roster.seq == answers.count("") * limits.MAX_ENTRIES_PER_FRAME
    assert resident_kib(broker) - before < MEMORY_KIB


def _entries(founder: WireMember, count: int) -> list[Entry]:
    """Valid entries in a row that need nobody else: the owner names the same broker again and again."""
    entries = []
    for _ in range(count):
        entries.append(founder.entry("broker", bk=founder.roster.broker))
        founder.follow(entries[-1])
    return entries


def test_n08_what_the_broker_counts_is_no_secret(broker: BrokerProcess) -> None:
    """N08: the limits show in its metrics, which name nobody."""
    with urllib.request.urlopen(f"http://127.0.0.1:{broker.port}/metrics", timeout=10) as answer:
        text = answer.read().decode()

    assert "claudemesh" in text
    assert json.dumps(text).count("peer_id") == 0
