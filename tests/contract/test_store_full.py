"""A store whose database may not grow: nothing is answered that is not stored, and it recovers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claudemesh.broker.audit import checkpoint
from claudemesh.broker.store.base import LinkId, Stored
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.errors import LocalError
from claudemesh.protocol.audit_view import AuditView, verify
from claudemesh.types import BrokerId
from tests.contract.test_store import BOB, BROKER_KEY, LINK, MESH, NOW, submission


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "db")
    await opened.open()
    yield opened
    await opened.close()


async def limit_growth(store: SqliteStore, pages: int) -> None:
    """Let the database file grow by `pages` more pages at most; SQLite then answers SQLITE_FULL."""
    used = await store._database.write(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await store._database.write(lambda c: c.execute(f"PRAGMA max_page_count = {used + pages}").fetchone())


async def fill(store: SqliteStore) -> tuple[list[Stored], list[LocalError]]:
    """Append from many callers at once until some are refused."""
    answers: list[Stored] = []
    refusals: list[LocalError] = []
    while not refusals:
        calls = (store.append([submission(payload=bytes(2_000))], NOW) for _ in range(30))
        for result in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(result, LocalError):
                refusals.append(result)
            elif isinstance(result, list):
                answers.extend(result)
            else:
                raise result
    return answers, refusals


async def test_a_full_disk_refuses_and_stores_nothing_of_what_it_refused(store: SqliteStore) -> None:
    """Queue, usage and audit chain hold exactly what was answered."""
    await store.mailbox_usage(MESH, BOB)
    await limit_growth(store, 20)

    answers, refusals = await fill(store)

    assert {refusal.code for refusal in refusals} == {"disk"}
    rows = await store.lease(MESH, BOB, LINK, NOW, 10_000)
    n, head = await store.audit_head(MESH)
    assert [row.q for row in rows] == [answer.q for answer in answers]
    assert n == len(answers)
    end = checkpoint(MESH, n, head, NOW, BROKER_KEY)
    receipts = {answer.audit_n: answer.audit_hash for answer in answers}
    verify(
        AuditView(), await store.audit_rows(MESH, 0, n), end, receipts, mesh=MESH, broker=BrokerId(BROKER_KEY.public)
    )
    await limit_growth(store, 1_000_000)
    assert (await store.mailbox_usage(MESH, BOB)).rows == len(answers)


async def test_a_store_works_again_when_there_is_room(store: SqliteStore) -> None:
    """No restart is needed, and what was refused may be sent again."""
    await store.lease(MESH, BOB, LINK, NOW, 1)
    await limit_growth(store, 5)
    again = submission(payload=bytes(200_000), lease=LINK)
    with pytest.raises(LocalError):
        await store.append([again], NOW)
    await limit_growth(store, 1_000_000)

    [answer] = await store.append([again], NOW)

    assert (answer.duplicate, answer.leased, answer.audit_n) == (False, True, 0)
    await store.release(LINK)
    assert [row.q for row in await store.lease(MESH, BOB, LinkId(2), NOW, 10)] == [answer.q]
