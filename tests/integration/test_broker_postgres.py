"""One broker process on a PostgreSQL server that asks for a password, stops, and comes back (storage.md §4)."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from claudemesh.protocol import messages
from tests import wire_client as wire
from tests.brokers import BrokerProcess
from tests.postgres import PostgresServer, postgres_server

PASSWORD = "S3cret-of-the-database"
BROKER = [sys.executable, "-c", "from claudemesh.cli.broker import broker; broker()"]


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that lets nobody in over TCP without the password."""
    with postgres_server() as running:
        running.sql(f"ALTER ROLE claudemesh PASSWORD '{PASSWORD}'")
        rules = running.directory / "data" / "pg_hba.conf"
        rules.write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        running.sql("SELECT pg_reload_conf()")
        yield running


def start(directory: Path, url: str, *arguments: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
    """Run a broker that cannot start, to its end."""
    command = [*BROKER, "--listen", "127.0.0.1:0", "--key", str(directory / "key"), "--database", url, *arguments]
    surroundings = {**os.environ, "PGPASSWORD": password}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=surroundings, check=False)


async def readiness(broker: BrokerProcess) -> int:
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{broker.port}/ready") as answer:
        return answer.status


async def until_ready(broker: BrokerProcess) -> None:
    async with asyncio.timeout(30):
        while await readiness(broker) != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_broker_outlives_its_database_and_shows_no_password(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the server is away it is not ready and accepts nothing; what it had accepted is delivered afterwards."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    url = server.tcp_url(server.database())
    more = ("--key", str(tmp_path / "key"), "--log-level", "debug", "--database", url)

    async with BrokerProcess(tmp_path, *more) as broker:
        owner, other = await wire.mesh_of(broker.url, 2)
        letter, late = owner.envelope(other.id), owner.envelope(other.id)
        async with wire.member(broker.url, owner) as sending:
            await sending.submit(letter)
            await asyncio.to_thread(server.kill)
            away = await readiness(broker)
            refused = await asyncio.gather(sending.submit(late), return_exceptions=True)
            await asyncio.to_thread(server.start)
            await until_ready(broker)
            await sending.submit(late)
        async with wire.member(broker.url, other) as receiving:
            got = await receiving.deliveries(2)
        await broker.terminate()

    assert (away, getattr(refused[0], "code", None)) == (503, "storage")
    assert len(got) == 2
    assert PASSWORD not in (tmp_path / "broker.log").read_text()


async def test_second_broker_and_wrong_password_are_refused_with_a_reason(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a bus a database has one broker; whatever is wrong is said, the password never."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    url = server.tcp_url(server.database())
    secret_url = url.replace("claudemesh@", f"claudemesh:{PASSWORD}x@")

    async with BrokerProcess(tmp_path, "--key", str(tmp_path / "key"), "--database", url):
        second = await asyncio.to_thread(start, tmp_path, url)
        stranger = await asyncio.to_thread(start, tmp_path, secret_url, password="")
        nameless = await asyncio.to_thread(start, tmp_path, server.tcp_url(server.url("nothing")))

    assert "config_locked: another broker uses this database" in second.stderr
    assert "database_refused" in stranger.stderr
    assert "database_refused" in nameless.stderr
    assert {second.returncode, stranger.returncode, nameless.returncode} == {3}
    assert all(PASSWORD not in one.stderr + one.stdout for one in (second, stranger, nameless))


async def test_what_a_text_of_the_server_cannot_hold_is_no_defect(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U+0000 is refused, or found nowhere, like any other text that is no key."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    url, odd = server.tcp_url(server.database()), "\x00" * 64

    async with BrokerProcess(tmp_path, "--key", str(tmp_path / "key"), "--database", url) as broker:
        owner, other = await wire.mesh_of(broker.url, 2)
        async with wire.member(broker.url, owner) as link:
            cards = await link.request(messages.Cards, messages.GetCards, members=[odd])
            await link.send(msgspec.structs.replace(owner.envelope(other.id), att=odd))
            refused = await link.expect(messages.Refused)
            await link.send(messages.Attest(rid=9, st=owner.attestation(), sid="\x00"))
            ended = await link.ended()
        await broker.terminate()

    assert cards.cards == []
    assert refused.code == "invalid"
    assert isinstance(ended, messages.Closing)
    assert ended.code == "bad_frame"
    assert "link_failed" not in (tmp_path / "broker.log").read_text()
