"""What strangers and hostile members can do to a broker: nothing beyond docs/spec/limits.md."""

import asyncio
import json
import os
import resource
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from claudemesh.broker.app import Broker
from claudemesh.crypto import identity
from claudemesh.errors import BadSignature, HandshakeRefused, Malformed, Refused, Unreachable
from claudemesh.protocol import codec, limits, messages
from claudemesh.protocol.link import Founder, LinkHolder
from claudemesh.transport import connect
from tests import wire_client as wire
from tests.brokers import serving


async def is_alive(broker: Broker) -> bool:
    """Whether an honest peer can still found a mesh and send."""
    owner, other = await wire.mesh_of(broker.url, 2)
    async with wire.member(broker.url, owner) as link:
        await link.submit(owner.envelope(other.id))
    return True


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"null",
        b"{}",
        b"not json",
        b'{"t":7}',
        b'{"t":"hello"}',
        b'{"t":"hello","h":{},"att":{}}',
        b'{"t":"hello","h":{"b":"{}","k":"k","s":"s"},"att":{"b":"{}","k":"k","s":"s"}}',
        b'{"t":"claim","c":{"b":"{}","k":"","s":""}}',
        b'{"t":"append","rid":1,"entries":[]}',
        b'{"t":"append","rid":1,"entries":[{"b":"{}","s":{}}]}',
        b'{"t":"append","rid":-1,"entries":[{"b":"{}","s":{}}]}',
        b'{"t":"ping"}',
        b'{"t":"sync","rid":1,"seq":0}',
        b'{"t":"ack","q":[1]}',
        b'{"t":"unheard_of"}',
        b"[" * 3_000,
        b'{"t":"ping","x":"' + b"x" * 4_100 + b'"}',
    ],
    ids=lambda frame: frame[:40].decode() or "empty",
)
async def test_violation_of_the_handshake_ends_the_link_with_a_code(broker: Broker, frame: bytes) -> None:
    """Before the handshake there is no second chance, and no stack trace."""
    async with wire.dial_raw(broker.url) as link:
        await link.expect(messages.Challenge)
        await link.send(frame)
        last = await link.ended()

    assert last is not None
    assert last.code in (*Malformed.CODES, *BadSignature.CODES, *HandshakeRefused.CODES, "invalid")
    assert "Traceback" not in last.detail
    assert link.pipe.close_code in (1008, 1009)
    assert await is_alive(broker)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"[]",
        b'{"t":"send"}',
        b'{"t":"ack","q":["1"]}',
        b'{"t":"ack","q":[]}',
        b'{"t":"ack","q":[1e400]}',
        b'{"t":"ack","q":[' + b"1," * 300 + b"1]}",
        b'{"t":"sync","rid":1,"seq":99999999999999999999}',
        b'{"t":"get_cards","rid":1,"members":"all"}',
        b'{"t":"hello","h":{"b":"","k":"","s":""},"att":{"b":"","k":"","s":""}}',
        b'{"t":"set_status","sess":"x","status":"sleepy"}',
        b"\xff\xfe\x00",
        b'{"t":"ping","x":"' + b"x" * (limits.MAX_FRAME_BYTES) + b'"}',
    ],
    ids=lambda frame: repr(frame[:40]),
)
async def test_malformed_frame_ends_an_open_link_and_no_other(broker: Broker, frame: bytes) -> None:
    owner, other = await wire.mesh_of(broker.url, 2)
    async with wire.member(broker.url, other) as bystander:
        async with wire.member(broker.url, owner) as link:
            await link.send(frame)
            last = await link.ended()
        alive = await bystander.quiet(messages.Push, 0)

    assert isinstance(last, messages.Closing)
    assert last.code in (*Malformed.CODES, *HandshakeRefused.CODES)
    assert alive


async def test_unknown_type_is_refused_and_unknown_fields_are_ignored(broker: Broker) -> None:
    """An open link survives what a later version may say."""
    [owner] = await wire.mesh_of(broker.url, 1)
    async with wire.member(broker.url, owner) as link:
        await link.send(b'{"t":"teleport","rid":1}')
        refused = await link.expect(messages.Refused)
        await link.send(b'{"t":"ping","later":{"deep":[1,2,{}]}}')
        await link.expect(messages.Pong)

    assert refused.code == "not_supported"


async def test_frame_of_a_megabyte_passes_after_the_handshake_but_not_before(broker: Broker) -> None:
    """The size that a stranger may send is not the size that a member may send."""
    owner, other = await wire.mesh_of(broker.url, 2)
    large = owner.envelope(other.id, size=700_000)
    async with wire.member(broker.url, owner) as sending, wire.member(broker.url, other) as receiving:
        await sending.submit(large)
        [delivery] = await receiving.deliveries(1)
    async with wire.dial_raw(broker.url) as link:
        await link.expect(messages.Challenge)
        await link.send(codec.encode_message(large))
        with pytest.raises(Unreachable):
            await link.read()

    assert len(bytes(delivery.e)) > 900_000


async def test_huge_frame_header_of_a_stranger_costs_no_memory(broker: Broker) -> None:
    """A stranger that announces a frame of a gigabyte is cut off after a few kilobytes of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
    writer.write(
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OTAxMjM0NQ==\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    sent = 0
    writer.write(b"\x81\xff" + (1 << 19).to_bytes(8, "big") + b"mask")
    try:
        while sent < 64 << 20:
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()
            await asyncio.sleep(0)
    except ConnectionError:
        pass
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    assert sent < 64 << 20
    assert grown_kb < 16 << 10
    writer.close()


async def test_stranger_that_says_nothing_is_dropped(tmp_path: Path) -> None:
    """Neither a silent TCP connection nor a silent WebSocket stays."""
    async with serving(tmp_path, limits={"handshake_timeout_ms": 500}) as broker:
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
        async with wire.dial_raw(broker.url) as link:
            await link.expect(messages.Challenge)
            async with asyncio.timeout(5):
                raw = await reader.read()
                assert await link.ended() is None
        writer.close()

    assert raw == b""


async def test_half_open_connections_are_bounded_per_address(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"half_open_links_per_address": 5}) as broker:
        sockets = [socket.create_connection(("127.0.0.1", broker.port or 0)) for _ in range(20)]
        await asyncio.sleep(0.3)
        for one in sockets:
            one.setblocking(False)
        dropped = 0
        for one in sockets:
            try:
                dropped += one.recv(1) == b""
            except BlockingIOError:
                continue
            except ConnectionError:
                dropped += 1
        for one in sockets:
            one.close()
        await asyncio.sleep(0.2)
        alive = await is_alive(broker)

    assert dropped == 15
    assert alive


async def test_only_failed_handshakes_count_against_an_address(tmp_path: Path) -> None:
    """Forty honest connections pass where the eleventh failure does not: a NAT full of peers can come back."""
    async with serving(tmp_path, limits={"failed_handshakes_per_minute": 10}) as broker:
        owner, _ = await wire.mesh_of(broker.url, 2)
        for _ in range(40):
            async with wire.member(broker.url, owner):
                pass
        for _ in range(10):
            async with wire.dial_raw(broker.url) as link:
                await link.send(b"{}")
                await link.ended()
        with pytest.raises(Unreachable) as refused:
            await connect(broker.url)

    assert "429" in refused.value.detail


@pytest.mark.parametrize(
    ("trusts", "failed_from", "kept_out", "let_in"),
    [
        (
            True,
            "192.0.2.1",
            ["192.0.2.1", "203.0.113.9, 192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1:5555"],
            ["192.0.2.2", "192.0.2.1, 192.0.2.2"],
        ),
        (
            True,
            "2001:db8:0:7::1",
            ["2001:db8:0:7::1", "2001:db8:0:7:ffff::2", "[2001:db8:0:7::3]:443"],
            ["2001:db8:0:8::1", "192.0.2.1"],
        ),
        (False, "192.0.2.1", ["192.0.2.2", "2001:db8::1"], []),
    ],
    ids=["IPv4", "IPv6", "no proxy"],
)
async def test_failures_count_against_whoever_the_proxy_names_last(
    tmp_path: Path, trusts: bool, failed_from: str, kept_out: list[str], let_in: list[str]
) -> None:
    """What a client says of itself before the proxy does is not believed; one IPv6 address means a whole network."""
    grants = {"failed_handshakes_per_minute": 3}
    async with serving(tmp_path, limits=grants, trust_forwarded_for=trusts) as broker, aiohttp.ClientSession() as http:

        async def dial(address: str, says: str = "") -> int:
            """How the broker answers a handshake that a proxy forwards for an address."""
            url = broker.url.replace("ws://", "http://")
            try:
                async with http.ws_connect(url, headers={"X-Forwarded-For": address}) as socket:
                    await socket.receive()
                    if says:
                        await socket.send_str(says)
                        await socket.receive()
                    return 101
            except aiohttp.WSServerHandshakeError as error:
                return error.status

        for _ in range(3):
            await dial(failed_from, "not a hello")
        answers = {address: await dial(address) for address in [*kept_out, *let_in]}

    assert answers == dict.fromkeys(kept_out, 429) | dict.fromkeys(let_in, 101)


async def test_claims_are_limited_per_invite(tmp_path: Path) -> None:
    """Guessing at an invite, or hammering one, stops after ten a minute."""
    async with serving(tmp_path) as broker:
        owner = wire.Identity()
        mesh = await wire.found(broker.url, owner)
        invite = await wire.issue(broker.url, owner)
        for _ in range(10):
            async with wire.dial(broker.url, LinkHolder(invite, mesh[:32])):
                pass
        with pytest.raises(Refused) as refused:
            async with wire.dial(broker.url, LinkHolder(invite, mesh[:32])):
                pass

    assert refused.value.code == "rate_limited"
    assert refused.value.retry_after_ms is not None


async def test_reader_that_never_reads_is_cut_off_and_loses_nothing(tmp_path: Path) -> None:
    """What is unread is bounded; its envelopes wait in the store for its next link."""
    grants = {"buffered_bytes": 64 << 10, "buffered_bytes_max": 256 << 10, "messages_burst": 10_000}
    async with serving(tmp_path, limits=grants) as broker:
        owner, other = await wire.mesh_of(broker.url, 2)
        async with wire.member(broker.url, owner) as sending, wire.member(broker.url, other) as stuck:
            transport = stuck.pipe._socket._conn.transport
            transport.pause_reading()
            for _ in range(40):
                await sending.submit(owner.envelope(other.id, size=100_000))
            alive = await sending.quiet(messages.Push, 0)
            transport.abort()
        async with wire.member(broker.url, other) as receiving:
            deliveries: list[messages.Delivery] = []
            while len(deliveries) < 40:
                batch = (await receiving.expect(messages.Push)).d
                deliveries += batch
                await receiving.send(messages.Ack(q=[one.q for one in batch]))

    assert alive
    assert len(deliveries) == 40


async def test_frames_that_are_never_finished_are_bounded_together(tmp_path: Path) -> None:
    """Each is within its link's limit. Whoever founds a mesh may have thousands of links: the largest are cut off."""
    room = 3 << 20
    async with serving(tmp_path, limits={"held_bytes": room}) as broker:
        owner, hoarder, other = await wire.mesh_of(broker.url, 3)
        async with wire.member(broker.url, owner) as honest, AsyncExitStack() as links:
            for _ in range(6):
                hoarder.session = identity.session_keys(os.urandom(64))
                link = await links.enter_async_context(wire.member(broker.url, hoarder))
                await begin_frame(link, size=1_000_000, send=900_000)
            streams = broker._listener._streams
            async with asyncio.timeout(wire.PATIENCE_S):
                while broker._core.metrics.links_cut < 3 or sum(stream.held() for stream in streams) > room:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await honest.submit(owner.envelope(other.id))


async def begin_frame(link: wire.Wire, size: int, send: int) -> None:
    """Send the beginning of a frame, masked with the zero key, and never the rest."""
    transport = link.pipe._socket._response.connection.transport
    transport.write(b"\x81\xff" + size.to_bytes(8, "big") + b"\0" * 4 + b" " * send)
    while transport.get_write_buffer_size():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_request_flood_is_slowed_down_not_buffered(tmp_path: Path) -> None:
    """Answers never outrun the requests that the broker reads."""
    async with serving(tmp_path, limits={"requests_burst": 5, "requests_per_second": 20}) as broker:
        owner, other = await wire.mesh_of(broker.url, 2)
        async with wire.member(broker.url, other) as bystander, wire.member(broker.url, owner) as flooding:
            for _ in range(200):
                await flooding.send(messages.Ping())
            await asyncio.sleep(0.5)
            await bystander.send(messages.Ping())
            await bystander.expect(messages.Pong)
            pongs = 0
            try:
                async with asyncio.timeout(0.2):
                    while True:
                        await flooding.read()
                        pongs += 1
            except TimeoutError:
                pass

    assert 0 < pongs < 60


async def test_unknown_host_is_not_signed_into_a_challenge(broker: Broker) -> None:
    """A relay cannot make the broker name the relay's address."""
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{broker.port}/ws"
        async with session.ws_connect(url, headers={"Host": "evil.example"}) as link:
            challenge = json.loads(await link.receive_str())["st"]["b"]

    assert json.loads(challenge)["origin"] == broker.url


async def test_plain_requests_learn_nothing_but_health(broker: Broker) -> None:
    async with aiohttp.ClientSession() as session:
        base = f"http://127.0.0.1:{broker.port}"
        answers = {}
        for path in ("/health", "/ready", "/metrics", "/", "/../etc/passwd", "/ws"):
            async with session.get(base + path) as answer:
                answers[path] = (answer.status, await answer.text())
        async with session.post(base + "/health") as answer:
            posted = answer.status

    assert [answers[path][0] for path in ("/health", "/ready", "/metrics")] == [200, 200, 200]
    assert answers["/"][0] == 404
    assert answers["/ws"][0] == 400
    assert posted == 405
    assert "claudemesh_envelopes_accepted_total" in answers["/metrics"][1]


async def test_one_address_does_not_take_up_all_uploads(tmp_path: Path) -> None:
    """Whoever keeps founding keeps nobody else from it: as many at a time as the limit says, and the link ends."""
    first, second = wire.Identity(), wire.Identity()
    async with serving(tmp_path, limits={"uploads_per_address": 1}) as broker:
        genesis = [one.genesis(broker.id) for one in (first, second)]
        async with wire.dial(broker.url, Founder()) as holding:
            await holding.append(genesis[0])
            async with wire.dial(broker.url, Founder()) as other:
                with pytest.raises(Refused) as crowded:
                    await other.append(genesis[1])
        async with wire.dial(broker.url, Founder()) as later:
            appended = await later.append(genesis[1])

    assert (crowded.value.code, crowded.value.detail) == ("rate_limited", "too many uploads")
    assert appended.seq == 0
