"""The schema of a broker's database: which steps it has had, and the missing ones (docs/spec/storage.md §4)."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from claudemesh.broker.store.url import DatabaseUrl
from claudemesh.database import Database, Migration, load_migrations
from claudemesh.errors import LocalError

_SQLITE = "claudemesh.broker.store.sqlite.migrations"


@dataclass(frozen=True, slots=True)
class Schema:
    """How many steps a database has had, how many this version knows, and the file names of those that it lacks."""

    version: int
    known: int
    missing: Sequence[str]


async def look(database: Path | DatabaseUrl) -> Schema:
    """Find out what a database lacks, and change nothing; a SQLite file that does not exist lacks everything.

    Raises:
        LocalError: `newer_schema`; the database cannot be read or does not answer.
    """
    if isinstance(database, Path):
        steps = load_migrations(_SQLITE)
        return _schema(_version_of(database), steps)
    from claudemesh.broker.store.postgres.connection import connect  # its driver is for those who have a server
    from claudemesh.broker.store.postgres.migrating import known_steps, schema_version

    connection = await connect(database)
    try:
        return _schema(await schema_version(connection), known_steps())
    finally:
        await connection.close()


async def migrate(database: Path | DatabaseUrl, applied: Callable[[str], None]) -> Schema:
    """Apply what a database lacks; brokers of the version before go on beside it, except on a SQLite file.

    Args:
        applied: Called with the file name of each step when it is committed.

    Raises:
        LocalError: As `look`; and `config_locked` when a broker has the SQLite file.
    """
    if isinstance(database, Path):
        return await _migrate_file(database, applied)
    from claudemesh.broker.store.postgres.connection import connect, translated
    from claudemesh.broker.store.postgres.migrating import known_steps, schema_version
    from claudemesh.broker.store.postgres.migrating import migrate as apply

    connection = await connect(database, patient=True)
    try:
        with translated():
            await apply(connection, known_steps(), lambda step: applied(step.name))
            return _schema(await schema_version(connection), known_steps())
    finally:
        await connection.close()


async def _migrate_file(path: Path, applied: Callable[[str], None]) -> Schema:
    before = await look(path)
    async with Database(path, migrations=load_migrations(_SQLITE)):
        for name in before.missing:
            applied(name)
    return await look(path)


def _version_of(path: Path) -> int:
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            version: int = connection.execute("PRAGMA user_version").fetchone()[0]
            return version
    except sqlite3.Error as error:
        raise LocalError("journal_damaged", str(path)) from error


def _schema(version: int, steps: Sequence[Migration]) -> Schema:
    if version > len(steps):
        raise LocalError("newer_schema", f"schema {version}, this version knows {len(steps)}")
    return Schema(version, len(steps), [step.name for step in steps[version:]])
