"""The stores that run the contract suite."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from claudemesh.broker.store.base import Store
from claudemesh.broker.store.sqlite import SqliteStore

Reopen = Callable[[], Awaitable[Store]]


@pytest.fixture(params=["sqlite", "sqlite-in-memory"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    path = tmp_path / "broker.sqlite3" if request.param == "sqlite" else None
    return lambda: SqliteStore(path)


@pytest.fixture
async def store(backend: Callable[[], Store]) -> AsyncIterator[Store]:
    opened = backend()
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def reopen(tmp_path: Path) -> AsyncIterator[Reopen]:
    """Closes the durable store, if it is open, and opens it anew."""
    current: list[Store] = []

    async def again() -> Store:
        if current:
            await current.pop().close()
        current.append(SqliteStore(tmp_path / "broker.sqlite3"))
        await current[0].open()
        return current[0]

    yield again
    if current:
        await current.pop().close()
