"""The database: one writer, group commit, migrations, and what its failures leave behind."""

import asyncio
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from claudemesh.database import Database, Migration
from claudemesh.errors import LocalError

SCHEMA = (Migration(1, "0001_first.sql", "CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB);\nPRAGMA user_version = 1;"),)
BRIEF = pytest.mark.parametrize("brief", [False, True])
SECOND = Migration(2, "0002_second.sql", "ALTER TABLE t ADD COLUMN w TEXT;\nPRAGMA user_version = 2;")


def put(key: int, value: bytes = b"") -> Callable[[sqlite3.Connection], int]:
    def operation(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO t (k, v) VALUES (?, ?)", (key, value))
        return key

    return operation


def keys(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT k FROM t ORDER BY k")]


def modes_in(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


@BRIEF
async def test_what_was_written_is_there_after_reopening(tmp_path: Path, brief: bool) -> None:
    """A call that returned has been committed to the file."""
    async with Database(tmp_path / "db", migrations=SCHEMA) as database:
        assert await database.write(put(1), brief=brief) == 1

    async with Database(tmp_path / "db", migrations=SCHEMA) as database:
        found = await database.read(keys, brief=brief)

    assert found == [1]


@BRIEF
async def test_a_reader_sees_what_was_committed_and_cannot_write(tmp_path: Path, brief: bool) -> None:
    """Reads run on a snapshot of their own, beside the writer."""
    async with Database(tmp_path / "db", migrations=SCHEMA) as database:
        await database.write(put(1), brief=brief)

        assert await database.read(keys, brief=brief) == [1]
        with pytest.raises(LocalError) as caught:
            await database.read(put(2), brief=brief)

        assert caught.value.code == "disk"
        assert await database.read(keys, brief=brief) == [1]


async def test_a_reader_does_not_see_what_is_not_on_disk_yet(tmp_path: Path) -> None:
    """The statements of a brief operation have run before its commit; nobody is shown them before that."""
    async with Database(tmp_path / "db", migrations=SCHEMA) as database:
        writing = asyncio.create_task(database.write(put(1), brief=True))
        seen_early = []
        while not writing.done():
            found = await database.read(keys, brief=True)
            seen_early += [] if database._connections[0].in_transaction is False else found
            await asyncio.sleep(0)

        assert seen_early == []
        assert await database.read(keys, brief=True) == [1]


async def test_a_private_database_in_memory_needs_no_file() -> None:
    """With no path, reads see what was written."""
    async with Database(None, migrations=SCHEMA) as database:
        await database.write(put(1))

        assert await database.read(keys) == [1]


@BRIEF
@pytest.mark.parametrize("path_name", ["db", None])
async def test_one_operation_that_raises_is_undone_alone(tmp_path: Path, path_name: str | None, brief: bool) -> None:
    """Operations share a commit and nothing else: the others of the batch take effect, each once."""

    def write_then_fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t (k) VALUES (99)")
        raise ValueError("not this one")

    async with Database(tmp_path / path_name if path_name else None, migrations=SCHEMA) as database:
        results = await asyncio.gather(
            *(database.write(put(k), brief=brief) for k in range(20)),
            database.write(write_then_fail, brief=brief),
            *(database.write(put(k), brief=brief) for k in range(20, 40)),
            return_exceptions=True,
        )
        found = await database.read(keys)

    assert found == list(range(40))
    assert [type(result) for result in results] == [int] * 20 + [ValueError] + [int] * 20


@BRIEF
async def test_a_broken_constraint_is_the_callers_error_and_undoes_only_that_call(tmp_path: Path, brief: bool) -> None:
    """An error of the statement itself is not mistaken for a failing disk."""
    async with Database(tmp_path / "db", migrations=SCHEMA) as database:
        results = await asyncio.gather(
            *(database.write(put(k), brief=brief) for k in (1, 1, 2)), return_exceptions=True
        )
        found = await database.read(keys)

    assert isinstance(results[1], sqlite3.IntegrityError)
    assert found == [1, 2]


@BRIEF
async def test_operations_that_wait_together_share_one_commit(tmp_path: Path, brief: bool) -> None:
    """Group commit: far fewer transactions than callers."""

    async with Database(tmp_path / "db", migrations=SCHEMA) as database:
        commits = []
        database._connections[0].set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
        await asyncio.gather(*(database.write(put(k), brief=brief) for k in range(500)))

    assert 1 <= len(commits) <= 50


async def test_what_follows_from_a_commit_shares_the_next_one(tmp_path: Path) -> None:
    """Tasks that write one after another in the same few turns of the loop do not pay for a flush each."""

    async def write_after(turns: int, key: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await database.write(put(key), brief=True)
        await database.write(put(key + 10), brief=True)

    async with Database(tmp_path / "db", migrations=SCHEMA) as database:
        commits = []
        database._connections[0].set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
        await asyncio.gather(*(write_after(turns, turns) for turns in range(3)))

    assert len(commits) == 2


async def test_operations_take_effect_in_the_order_of_their_calls(tmp_path: Path) -> None:
    """A brief operation neither overtakes one for the thread nor is overtaken, whatever runs at the moment."""
    calls = [(k, k % 7 in (1, 2, 5)) for k in range(300)]

    def put_next(key: int) -> Callable[[sqlite3.Connection], object]:
        statement = "INSERT INTO t (k, v) VALUES (?, (SELECT count(*) FROM t))"
        return lambda connection: connection.execute(statement, (key,)).rowcount

    async with Database(tmp_path / "db", migrations=SCHEMA) as database:
        tasks = []
        for key, brief in calls:
            tasks.append(asyncio.create_task(database.write(put_next(key), brief=brief)))
            await asyncio.sleep(0.001 if key % 41 == 0 else 0)
        await asyncio.gather(*tasks)
        found = await database.read(lambda c: [row[0] for row in c.execute("SELECT k FROM t ORDER BY v")])

    assert found == [key for key, _ in calls]


@BRIEF
async def test_a_cancelled_caller_does_not_disturb_the_others(tmp_path: Path, brief: bool) -> None:
    """Its operation is committed all the same, once."""
    async with Database(tmp_path / "db", migrations=SCHEMA) as database:
        tasks = [asyncio.create_task(database.write(put(k), brief=brief)) for k in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        found = await database.read(keys)

    assert [results[0], results[2]] == [0, 2]
    assert found == [0, 1, 2]


@BRIEF
async def test_closing_finishes_what_was_called(tmp_path: Path, brief: bool) -> None:
    """Nothing that was handed to the writer is dropped at close."""
    database = Database(tmp_path / "db", migrations=SCHEMA)
    await database.open()
    tasks = [asyncio.create_task(database.write(put(k), brief=brief)) for k in range(100)]
    await asyncio.sleep(0)

    await database.close()

    assert sorted(await asyncio.gather(*tasks)) == list(range(100))


@BRIEF
async def test_a_full_disk_fails_the_batch_and_leaves_nothing_half_applied(tmp_path: Path, brief: bool) -> None:
    """SQLITE_FULL: every caller of the batch gets `disk`, none of it is stored, and later calls work again."""
    rollbacks = []
    async with Database(tmp_path / "db", migrations=SCHEMA, on_rollback=lambda: rollbacks.append(1)) as database:
        await database.write(put(0))
        limit = await database.write(lambda c: c.execute("PRAGMA page_count").fetchone()[0] + 4)
        await database.write(lambda c: c.execute(f"PRAGMA max_page_count = {limit}").fetchone())

        results = await asyncio.gather(
            *(database.write(put(k, os.urandom(2_000)), brief=brief) for k in range(1, 51)), return_exceptions=True
        )
        stored = await database.read(keys)
        await database.write(lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchone())
        await database.write(put(1_000), brief=brief)

        failures = [result for result in results if isinstance(result, LocalError)]
        acknowledged = [result for result in results if isinstance(result, int)]
        assert failures
        assert {failure.code for failure in failures} == {"disk"}
        assert stored == [0, *acknowledged]
        assert rollbacks
        assert await database.read(keys) == [0, *acknowledged, 1_000]


async def test_a_file_that_is_no_database_is_reported_and_left_alone(tmp_path: Path) -> None:
    """`journal_damaged`, and the bytes are still there for whoever wants to rescue something."""
    path = tmp_path / "db"
    path.write_bytes(b"this is not a database at all, " * 400)
    path.chmod(0o600)
    before = path.read_bytes()

    with pytest.raises(LocalError) as caught:
        await Database(path, migrations=SCHEMA).open()

    assert caught.value.code == "journal_damaged"
    assert path.read_bytes() == before


async def test_damage_found_later_is_reported_to_the_caller(tmp_path: Path) -> None:
    """A page overwritten behind our back raises `journal_damaged` where it is met."""
    path = tmp_path / "db"
    async with Database(path, migrations=SCHEMA) as database:
        await asyncio.gather(*(database.write(put(k, os.urandom(3_000))) for k in range(100)))
    with path.open("r+b") as file:
        file.seek(8_192)
        file.write(b"\xff" * (path.stat().st_size - 8_192))

    async with Database(path, migrations=SCHEMA) as database:
        with pytest.raises(LocalError) as reading:
            await database.read(keys)
        with pytest.raises(LocalError) as writing:
            await database.write(put(1_000))

    assert (reading.value.code, writing.value.code) == ("journal_damaged", "journal_damaged")


async def test_a_newer_schema_is_refused_untouched(tmp_path: Path) -> None:
    """An older version does not guess what a newer one wrote."""
    async with Database(tmp_path / "db", migrations=(*SCHEMA, SECOND)) as database:
        await database.write(put(1))

    with pytest.raises(LocalError) as caught:
        await Database(tmp_path / "db", migrations=SCHEMA).open()

    assert caught.value.code == "newer_schema"
    async with Database(tmp_path / "db", migrations=(*SCHEMA, SECOND)) as database:
        assert await database.read(keys) == [1]


async def test_missing_migrations_are_applied_and_data_is_kept(tmp_path: Path) -> None:
    """Each step runs once, in order."""
    async with Database(tmp_path / "db", migrations=SCHEMA) as database:
        await database.write(put(1))

    async with Database(tmp_path / "db", migrations=(*SCHEMA, SECOND)) as database:
        columns = await database.read(lambda c: [row[1] for row in c.execute("PRAGMA table_info(t)")])
        found = await database.read(keys)

    assert columns == ["k", "v", "w"]
    assert found == [1]


async def test_a_migration_that_fails_leaves_the_schema_as_it_was(tmp_path: Path) -> None:
    """A step is applied whole or not at all."""
    broken = Migration(2, "0002_broken.sql", "ALTER TABLE t ADD COLUMN w;\nINSERT INTO missing VALUES (1);\n")
    async with Database(tmp_path / "db", migrations=SCHEMA):
        pass

    with pytest.raises(sqlite3.OperationalError):
        await Database(tmp_path / "db", migrations=(*SCHEMA, broken)).open()

    async with Database(tmp_path / "db", migrations=SCHEMA) as database:
        columns = await database.read(lambda c: [row[1] for row in c.execute("PRAGMA table_info(t)")])
    assert columns == ["k", "v"]


async def test_every_file_of_the_database_is_private(tmp_path: Path) -> None:
    """0600, the write-ahead log included."""
    async with Database(tmp_path / "db", migrations=SCHEMA) as database:
        await database.write(put(1))
        modes = modes_in(tmp_path)

    assert {"db", "db-wal", "db-shm", "db.lock"} <= modes.keys()
    assert set(modes.values()) == {0o600}


async def test_a_database_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """Fail closed, and name the remedy."""
    (tmp_path / "db").touch(mode=0o600)
    (tmp_path / "db").chmod(0o640)

    with pytest.raises(LocalError) as caught:
        await Database(tmp_path / "db", migrations=SCHEMA).open()

    assert caught.value.code == "config_mode"
    assert "chmod 600" in caught.value.detail


async def test_a_second_opener_is_refused_until_the_first_has_closed(tmp_path: Path) -> None:
    """What is cached in memory is true only while nobody else writes."""
    async with Database(tmp_path / "db", migrations=SCHEMA):
        with pytest.raises(LocalError) as caught:
            await Database(tmp_path / "db", migrations=SCHEMA).open()
        assert caught.value.code == "config_locked"

    async with Database(tmp_path / "db", migrations=SCHEMA) as database:
        assert await database.read(keys) == []


async def test_deleted_content_is_overwritten(tmp_path: Path) -> None:
    """After an acknowledgement and a checkpoint the ciphertext is not in the file any more."""
    canary = b"canary" * 300
    async with Database(tmp_path / "db", migrations=SCHEMA) as database:
        await database.write(put(1, canary))
        await database.write(lambda c: c.execute("DELETE FROM t").rowcount)

    assert b"canarycanary" not in (tmp_path / "db").read_bytes()
