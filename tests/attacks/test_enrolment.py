"""N02, N04: what crosses the wire while people create and join a mesh, as somebody on the network records it."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from claudemesh.broker.app import Broker
from claudemesh.broker.config import Settings
from claudemesh.crypto import statements
from claudemesh.crypto.invite import parse_link
from claudemesh.listen import Listen
from claudemesh.peer.runtime import Runtime
from claudemesh.protocol.roster_entry import OPTIONAL_FIELDS, REQUIRED_FIELDS
from tests.attacks.key_attacks import config_secrets
from tests.attacks.real_peers import TEMPO, create_mesh, invite_of, join
from tests.attacks.recording_proxy import RecordingProxy
from tests.attacks.search import search_bytes
from tests.processes import free_port

ALLOWED: dict[str, set[str]] = {
    "hello": {"t", "h", "att", "sid", "pid", "cwd", "status", "cursor"},
    "claim": {"t", "c"},
    "sync": {"t", "rid", "seq"},
    "append": {"t", "rid", "entries"},
    "put_card": {"t", "rid", "st"},
    "get_cards": {"t", "rid", "members"},
    "list_peers": {"t", "rid"},
    "get_audit": {"t", "rid", "n"},
    "ack": {"t", "q"},
    "ping": {"t"},
    "attest": {"t", "rid", "st", "sid", "status", "live"},
    "end": {"t", "sess"},
    "send": {"t", "k", "mesh", "from", "to", "kid", "id", "prio", "rs", "att", "nonce", "ct", "nbf", "exp"},
}
STATEMENTS: dict[str, set[str]] = {
    "h": {"at", "bk", "cn", "member", "mesh", "nonce", "origin", "rh", "rs", "sess", "v"},
    "c": {"at", "bk", "inv", "mid", "nonce", "origin", "v"},
    "att": {"caps", "exp", "iat", "member", "mesh", "sbox", "sess", "v"},
    "card": {"at", "box", "cs", "dead", "member", "mesh", "rh", "rs", "v"},
}
COMMON = {"v", "mesh", "seq", "prev", "op", "by", "at"}
WORDS = {"member", "admin", "owner", "chan", "dm", "bcast", "file", "sched", "state_w", *REQUIRED_FIELDS}
HEX = re.compile(r"[0-9a-f]{32,64}\Z")
NAMES = {
    "mesh": b"Project Zephyrine",
    "owner": b"Aurelia-Canary",
    "device": b"Quartzbook",
    "joiner": b"Bartholomew-Canary",
}


class Enrolment:
    """A recorded enrolment: the proxy, and what must not be in its recording."""

    def __init__(self, proxy: RecordingProxy, link: str, secrets: dict[str, bytes]) -> None:
        self.proxy = proxy
        self.link = link
        self.secrets = secrets


@asynccontextmanager
async def recorded_broker() -> AsyncIterator[RecordingProxy]:
    """The real broker behind a recording relay; it answers for the relay's address only."""
    port = free_port()
    async with RecordingProxy.before("127.0.0.1", port) as proxy:
        async with Broker(Settings(listen=Listen("127.0.0.1", port), origins=(proxy.url,))):
            yield proxy


@pytest.fixture
async def enrolment(tmp_path: Path) -> AsyncIterator[Enrolment]:
    """An owner creates a mesh, makes a link and leaves; somebody joins."""
    runtime = Runtime(tempo=TEMPO)
    alice, bob = tmp_path / "alice", tmp_path / "bob"
    async with recorded_broker() as proxy:
        await create_mesh(
            alice,
            proxy.url,
            runtime,
            alias=NAMES["mesh"].decode(),
            name=NAMES["owner"].decode(),
            device=NAMES["device"].decode(),
        )
        link = await invite_of(alice, runtime)
        await join(bob, link, runtime, name=NAMES["joiner"].decode(), device=NAMES["device"].decode())
        parsed = parse_link(link)
        secrets = {
            f"{directory.name} secret {number}": secret
            for directory in (alice, bob)
            for number, secret in enumerate(config_secrets(directory))
        }
        secrets |= {"seed": parsed.seed, "invite key": parsed.invite_key().secret[:32]}
        secrets |= {"link text": link.partition("#")[2].partition(".")[0].encode()}
        yield Enrolment(proxy, link, secrets)


def strings(value: Any) -> list[str]:
    """Every string inside a JSON value."""
    if isinstance(value, dict):
        return [found for one in value.values() for found in strings(one)]
    if isinstance(value, list):
        return [found for one in value for found in strings(one)]
    return [value] if isinstance(value, str) else []


async def test_n02_a_peer_says_nothing_but_keys_signatures_hashes_and_times(enrolment: Enrolment) -> None:
    """N02: exact field lists of every frame that a peer sends until it is enrolled."""
    sent = [message for side, message in enrolment.proxy.messages() if side == "peer"]
    origin = enrolment.proxy.url

    assert {message["t"] for message in sent} >= {"hello", "claim", "sync", "append"}
    for message in sent:
        assert set(message) <= ALLOWED[message["t"]], message["t"]
        for field, fields in STATEMENTS.items():
            if field in message:
                body = statements.decode(message[field]["b"].encode())
                assert set(body) == fields, field
                assert [one for one in strings(body) if not HEX.match(one) and one not in WORDS | {origin}] == []
        if message["t"] == "put_card":
            assert set(statements.decode(message["st"]["b"].encode())) == STATEMENTS["card"]
        for entry in message.get("entries", []):
            body = statements.decode(entry["b"].encode())
            op = body["op"]
            assert set(body) - set(OPTIONAL_FIELDS.get(op, {})) == COMMON | set(REQUIRED_FIELDS[op]), op
            allowed = WORDS | {body.get("url", origin)}
            assert [one for one in strings(body) if not HEX.match(one) and one not in allowed] == []


async def test_n02_presence_in_the_hello_is_empty_by_default(enrolment: Enrolment) -> None:
    """N02: no label, no process, no directory, unless somebody asked for it."""
    hellos = [message for side, message in enrolment.proxy.messages() if message["t"] == "hello"]

    assert hellos
    assert {(hello.get("sid", ""), hello.get("cwd", "")) for hello in hellos} == {("", "")}


async def test_n02_no_name_and_no_secret_crosses_the_wire(enrolment: Enrolment) -> None:
    """N02, N04: in any spelling, in frames and in HTTP heads; and the search does find what is there."""
    wire = enrolment.proxy.everything()
    broker = enrolment.proxy.messages()[0]

    assert search_bytes(wire, NAMES | enrolment.secrets) == set()
    assert len(enrolment.secrets) >= 8
    assert broker is not None
    assert search_bytes(wire, {"mesh id": parse_link(enrolment.link).mesh_prefix.encode()}) == {"mesh id"}


async def test_n04_a_link_leaves_nothing_in_http(enrolment: Enrolment) -> None:
    """N04: request lines and headers are the same for every link: a path, a host, and no fragment."""
    heads = [one.request_head for one in enrolment.proxy.recordings]
    lines = {head.partition(b"\r\n")[0] for head in heads}
    headers = {line.partition(b":")[0].lower() for head in heads for line in head.split(b"\r\n")[1:]}

    assert lines == {b"GET /ws HTTP/1.1"}
    assert headers <= {
        b"host",
        b"upgrade",
        b"connection",
        b"sec-websocket-version",
        b"sec-websocket-key",
        b"accept",
        b"accept-encoding",
        b"user-agent",
    }
