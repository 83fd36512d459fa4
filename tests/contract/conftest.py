"""The stores that run the contract suite."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from claudemesh.broker.store.base import Store
from claudemesh.broker.store.postgres import DatabaseUrl, PostgresStore
from claudemesh.broker.store.sqlite import SqliteStore
from tests.postgres import PostgresServer, postgres_server

Reopen = Callable[[], Awaitable[Store]]

FIRST_PROCESS = "INSERT INTO nodes (node, broker, alone, beat_at) VALUES (0, '', false, 'epoch')"
"""The node that the plain numbers of links in these tests belong to."""
ITS_END = "DELETE FROM nodes WHERE node = 0"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The PostgreSQL server of this test process; whether it survives the loss of its machine is not asked here."""
    with postgres_server(fsync="off", full_page_writes="off") as server:
        yield server


@pytest.fixture(scope="session")
def database(postgres: PostgresServer) -> str:
    """The URL of a database for one test after the other."""
    return postgres.database()


@pytest.fixture
def empty_database(postgres: PostgresServer, database: str) -> str:
    """The URL of a database in which nothing is."""
    postgres.empty(database)
    return database


@pytest.fixture(params=["sqlite", "sqlite-in-memory", "postgresql"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Makes stores of one kind, all on the same data if it is kept in files."""
    if request.param == "postgresql":
        url = request.getfixturevalue("empty_database")
        return lambda: PostgresStore(DatabaseUrl(url))
    path = tmp_path / "broker.sqlite3" if request.param == "sqlite" else None
    return lambda: SqliteStore(path)


@pytest.fixture
async def store(backend: Callable[[], Store]) -> AsyncIterator[Store]:
    opened = backend()
    await opened.open()
    await start_process(opened)
    yield opened
    await opened.close()


@pytest.fixture(params=["sqlite", "postgresql"])
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Reopen]:
    """Ends the process that has the durable store open, if there is one, and opens it anew in another."""
    current: list[Store] = []
    url = request.getfixturevalue("empty_database") if request.param == "postgresql" else None

    async def again() -> Store:
        is_first = not current
        while current:
            await current.pop().close()
        store = SqliteStore(tmp_path / "broker.sqlite3") if url is None else PostgresStore(DatabaseUrl(url))
        await store.open()
        await (start_process if is_first else end_process)(store)
        current.append(store)
        return store

    yield again
    while current:
        await current.pop().close()


async def start_process(store: Store) -> None:
    """Links with small numbers are of a node that is alive."""
    if isinstance(store, PostgresStore):
        await store._lane.do(lambda transaction: transaction.execute(FIRST_PROCESS))


async def end_process(store: Store) -> None:
    """That node has ended, as nodes do that are killed: others find it silent."""
    if isinstance(store, PostgresStore):
        await store._lane.do(lambda transaction: transaction.execute(ITS_END))
