"""N08: what strangers can make a broker spend. The broker is a process of its own, so that its memory is its own."""

import asyncio
import contextlib
import json
import resource
import urllib.request
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from pathlib import Path

import pytest

from claudemesh.broker.key import load_key
from claudemesh.broker.policy import Limits
from claudemesh.protocol import limits, messages
from claudemesh.protocol.limits import HOUR_MS
from claudemesh.protocol.roster import Entry, entry_digest
from claudemesh.types import BrokerId, Digest, UnixMillis
from tests import large_logs
from tests.attacks.wire_member import WireLink, WireMember, dialled
from tests.attacks.wire_mesh import WireMesh, length_of_log
from tests.processes import BrokerProcess, free_port, start_broker

HALF_OPEN = 10_000
BATCH = 2_000
PATIENCE_S = 60
MEMORY_KIB = 150 << 10
"""How much more than at its start the broker may hold: generous, so that only a missing bound fails."""
ROSTER_KIB = 100 << 10
"""Likewise for 100,000 entries, which as objects would take 200 MiB and as a roster take 25."""
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    with start_broker(tmp_path) as process:
        yield process


def resident_kib(broker: BrokerProcess, which: str = "VmRSS") -> int:
    """Resident memory of the broker now; `VmHWM` for the most that it ever was."""
    assert broker.process is not None
    status = Path(f"/proc/{broker.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(which))


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


async def test_n08_the_longest_roster_is_served_in_bounded_memory(tmp_path: Path) -> None:
    """N08: 100,000 entries: loaded by a broker that starts, which takes longer than a handshake may, and sent to a peer
    that knows none and reads late. Of more entries only those that remove are taken.
    """
    process = BrokerProcess(tmp_path / "broker", free_port(), ("--limit", "handshake_timeout_ms=500"))
    owner, guest = WireMember("owner"), WireMember("guest")
    lines = await _longest_log(process, owner, guest)
    process.start()
    try:
        before = resident_kib(process)
        async with dialled(process.url) as link:
            await link.send(owner.hello(await link.challenge()))
            assert isinstance(await link.receive(PATIENCE_S), messages.HelloAck)
            await asyncio.sleep(1)
            heads = [digest async for digest in _log_heads(link)]
            _stand_at_the_end(owner, lines)
            more = await link.append(owner.entry("chan", chan="11" * 16, kind="open"))
            removal = await link.append(owner.entry("revoke", who=guest.id, why="removed"))
        grown = resident_kib(process, "VmHWM") - before
    finally:
        process.kill()

    assert heads[-1] == lines[-1][1]
    assert more == "limit roster_entries"
    assert removal == ""
    assert grown < ROSTER_KIB


async def _longest_log(process: BrokerProcess, owner: WireMember, guest: WireMember) -> list[large_logs.Line]:
    """Store as many entries as a broker takes by default, before it starts; the guest was admitted early."""
    process.directory.mkdir(mode=0o700)
    broker = BrokerId(load_key(process.database.with_name("broker.db.key")).public)
    at = UnixMillis(owner.clock() - HOUR_MS)
    lines = list(islice(large_logs.small(owner.keys, guest.keys, broker, at), Limits().roster_entries))
    await large_logs.stored(process.database, lines, at)
    owner.roster.restore_more([lines[0][0]])
    return lines


async def _log_heads(link: WireLink) -> AsyncIterator[Digest]:
    """The hash of the last entry of each `log` frame, until the broker says that there is no more."""
    more = True
    while more:
        log = await link.expect(messages.Log)
        yield entry_digest(log.entries[-1])
        more = log.more


def _stand_at_the_end(owner: WireMember, lines: list[large_logs.Line]) -> None:
    """Enough of a roster to sign an entry that follows it."""
    owner.roster.seq, owner.roster.head = len(lines) - 1, lines[-1][1]


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
