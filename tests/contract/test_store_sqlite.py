"""What only the SQLite store has to keep: one copy of a shared payload, and the schema of older databases."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from claudemesh.broker.store.base import Recipient, Usage
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.database import Database, load_migrations
from claudemesh.types import PeerId
from tests.contract.test_store import ALICE, BOB, CAROL, LATER, LINK, MESH, NOW, notice, submission
from tests.contract.test_store_channels import DEPLOYS, epoch, fan_out

MIGRATIONS = load_migrations("claudemesh.broker.store.sqlite.migrations")
PEER = "INSERT INTO peers (mesh_id, peer_id) VALUES (?, ?)"
ROW = (
    "INSERT INTO mailbox (q, recipient, sender, message_id, kind, size, scheduled, not_before, expires_at, accepted_at,"
    " attestation, audit_n, payload) VALUES (?, 2, 1, ?, ?, 10, ?, ?, ?, ?, NULL, 0, ?)"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.sqlite3"


def size(path: Path) -> int:
    return path.stat().st_size


def count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        found: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
        return found


async def make_old(path: Path) -> None:
    """A database of schema 1 with five messages in it, the sixth and seventh acknowledged long ago."""
    async with Database(path, migrations=MIGRATIONS[:1]) as old:

        def fill(connection: sqlite3.Connection) -> None:
            connection.executemany(PEER, [(MESH, ALICE), (MESH, BOB)])
            rows = [(q, f"old {q}", "dm", 0, None, LATER, NOW, b"letter %d" % q) for q in range(1, 8)]
            rows[1] = (2, "old notice", "sys", 0, None, LATER, NOW, b"notice")
            rows[2] = (3, "old schedule", "dm", 1, LATER, LATER + 1, NOW, b"scheduled")
            connection.executemany(ROW, rows)
            connection.execute("DELETE FROM mailbox WHERE q > 5")

        await old.write(fill)


async def test_older_database_is_upgraded_with_everything_that_waits_in_it(path: Path) -> None:
    """Rows keep number, order, payload, date and kind; a number that was given out is never used again."""
    await make_old(path)

    store = SqliteStore(path)
    await store.open()
    rows = await store.lease(MESH, BOB, LINK, NOW, 10)
    [new] = await store.append([submission()], NOW)
    usage = await store.mailbox_usage(MESH, BOB)
    expired = await store.expire(LATER, 10, notice)
    await store.close()

    assert [(row.q, row.kind, row.payload) for row in rows] == [
        (1, "dm", b"letter 1"),
        (2, "sys", b"notice"),
        (4, "dm", b"letter 4"),
        (5, "dm", b"letter 5"),
    ]
    assert new.q == 8
    assert usage == Usage(6, 1_050)
    assert expired.rows == 4


async def test_upgrade_of_an_empty_database_remembers_its_numbers(path: Path) -> None:
    """A peer may still hold an old number in the cursor of its next hello."""
    await make_old(path)
    async with Database(path, migrations=MIGRATIONS[:1]) as old:
        await old.write(lambda connection: connection.execute("DELETE FROM mailbox").rowcount)

    store = SqliteStore(path)
    await store.open()
    [new] = await store.append([submission()], NOW)
    await store.close()

    assert new.q == 8


async def test_payload_of_a_post_is_stored_once_and_deleted_with_its_last_row(path: Path) -> None:
    """Whatever removes the rows: acknowledgement, departure from the channel, revocation, expiry."""
    members = [PeerId(f"{number:064x}") for number in range(1_000)]
    store = SqliteStore(path)
    await store.open()
    [answer] = await store.fan_out([fan_out(*members, BOB, CAROL, ALICE, expires_at=LATER)], NOW)
    payloads = [count(path, "payloads")]

    for member, q in zip(members, answer.qs, strict=False):
        await store.acknowledge(MESH, member, [q], NOW)
    await store.drop_channel(MESH, BOB, DEPLOYS, NOW)
    await store.drop_mailbox(MESH, CAROL, NOW, notice)
    payloads.append(count(path, "payloads"))
    await store.expire(LATER, 10, notice)
    payloads.append(count(path, "payloads"))
    left = count(path, "mailbox")
    await store.close()

    assert (payloads, left) == ([1, 1, 0], 0)


async def test_disk_does_not_grow_with_the_mailboxes_of_a_large_post(path: Path) -> None:
    """A thousand copies of it would be a gigabyte."""
    members = [Recipient(PeerId(f"{number:064x}")) for number in range(1_000)]
    store = SqliteStore(path)
    await store.open()
    await store.fan_out([fan_out(payload=bytes(1_000_000), recipients=members)], NOW)
    await store.close()

    assert size(path) < 2_000_000


async def test_post_and_epoch_that_cannot_be_stored_leave_nothing(path: Path) -> None:
    """A full disk refuses all of a fan-out or none of it."""
    members = {PeerId(f"{number:064x}"): "slot" for number in range(5_000)}
    store = SqliteStore(path)
    await store.open()
    pages = await store._database.write(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await store._database.write(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 20}").fetchone())

    with pytest.raises(Exception, match="disk"):
        await store.fan_out([epoch(members)], NOW)
    await store._database.write(lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchone())
    [again] = await store.fan_out([epoch(members)], NOW)
    await store.close()

    assert (again.duplicate, len(again.qs), again.audit_n) == (False, 5_000, 0)
