"""The PostgreSQL store against `kill -9`: of the broker's process, and of the server in the middle of its commits."""

import asyncio
import random
import subprocess
from collections.abc import Iterator

import pytest

from tests.faults.store_writer import store_of
from tests.faults.test_store_crash import WRITER, Answered, check_store
from tests.postgres import PostgresServer, postgres_server

WRITERS_KILLED = 6
SERVERS_KILLED = 5


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        yield running


def write(url: str, lines: int, answered: Answered, server: PostgresServer | None) -> int:
    """Let a writer print `lines` lines, then kill `server`, or the writer itself; returns how the writer ended."""
    with subprocess.Popen([*WRITER, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            answered.read(line)
            lines -= 1
            if lines == 0:
                process.kill() if server is None else server.kill()
        said = process.stderr.read()
        code = process.wait()
    assert server is None or "LocalError: database_unreachable" in said, said[-2_000:]
    return code


async def check(server: PostgresServer, url: str, answered: Answered) -> int:
    store = store_of(url)
    await store.open()
    return await check_store(store, set(server.sql("SELECT message_id FROM mailbox", url).split()), answered)


async def test_nothing_that_was_answered_is_lost_when_a_broker_is_killed(server: PostgresServer) -> None:
    """What the killed process had asked for and was not told of is there as a whole or not at all."""
    chooser, answered, url, length = random.Random(2_026), Answered(), server.database(), 0

    for _ in range(WRITERS_KILLED):
        assert await asyncio.to_thread(write, url, chooser.randrange(1, 600), answered, None) == -9
        grown = await check(server, url, answered)
        assert grown >= length
        length = grown

    assert len(answered.stored) > WRITERS_KILLED


async def test_nothing_that_was_answered_is_lost_when_the_server_is_killed(server: PostgresServer) -> None:
    """Every process of it at once, with commits under way: those fail, and the others are there after its recovery."""
    chooser, answered, url, length = random.Random(2_027), Answered(), server.database(), 0

    for _ in range(SERVERS_KILLED):
        assert await asyncio.to_thread(write, url, chooser.randrange(1, 600), answered, server) == 1
        await asyncio.to_thread(server.start)
        grown = await check(server, url, answered)
        assert grown >= length
        length = grown

    assert len(answered.stored) > SERVERS_KILLED
