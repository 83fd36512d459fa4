"""The schema as numbered steps, each a file of SQL that is applied once, in a transaction."""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import NamedTuple

from claudemesh.errors import LocalError

_FILE = re.compile(r"([0-9]{4})_[a-z0-9_]+\.sql\Z")


class Migration(NamedTuple):
    """One step of the schema: its number, its file name and its statements, the last of which sets `user_version`."""

    version: int
    name: str
    sql: str


def load_migrations(package: str) -> tuple[Migration, ...]:
    """The files `NNNN_name.sql` of a package such as `claudemesh.broker.store.sqlite.migrations`, in order."""
    found = []
    for file in resources.files(package).iterdir():
        if match := _FILE.match(file.name):
            found.append(Migration(int(match[1]), file.name, file.read_text(encoding="utf-8")))
    found.sort()
    if [step.version for step in found] != list(range(1, len(found) + 1)):
        raise AssertionError(f"the migrations of {package} are not numbered 1 to N")
    return tuple(found)


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    """Apply the steps that the database lacks, each in a transaction of its own.

    Raises:
        LocalError: `newer_schema`: it has steps that we do not know. Nothing was changed.
    """
    current = schema_version(connection)
    if current > len(migrations):
        raise LocalError("newer_schema", f"schema {current}, this version knows {len(migrations)}")
    for step in migrations[current:]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements(step.sql):
                connection.execute(statement)
            if schema_version(connection) != step.version:
                raise AssertionError(f"{step.name} does not set user_version to {step.version}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def schema_version(connection: sqlite3.Connection) -> int:
    """How many steps the database has had."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        raise AssertionError("a migration ends in the middle of a statement")
