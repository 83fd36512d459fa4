"""The schema of the database: numbered steps, applied once however many nodes start at the same time.

Each step only adds to the schema, so that brokers of the version before go on while it is applied and afterwards.
"""

from collections.abc import Callable, Sequence
from typing import Final

from claudemesh.broker.store.postgres.connection import Connection
from claudemesh.database import Migration, load_migrations
from claudemesh.errors import LocalError

MIGRATIONS: Final = "claudemesh.broker.store.postgres.migrations"

_LOCK: Final = "SELECT pg_advisory_lock(hashtextextended('claudemesh migrations', 0))"
_UNLOCK: Final = "SELECT pg_advisory_unlock(hashtextextended('claudemesh migrations', 0))"
_EXISTS: Final = "SELECT to_regclass('schema_migrations') IS NOT NULL"
_CREATE: Final = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        version    integer PRIMARY KEY,
        name       text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
"""
_CURRENT: Final = "SELECT coalesce(max(version), 0) FROM schema_migrations"
_APPLIED: Final = "INSERT INTO schema_migrations (version, name) VALUES ($1, $2)"


def known_steps() -> tuple[Migration, ...]:
    """The steps that this version knows, 1 to N."""
    return load_migrations(MIGRATIONS)


async def schema_version(connection: Connection) -> int:
    """How many steps the database has had."""
    if not await connection.value(_EXISTS):
        return 0
    version: int = await connection.value(_CURRENT)
    return version


async def missing_steps(connection: Connection, steps: Sequence[Migration]) -> Sequence[Migration]:
    """The steps that the database has not had.

    Raises:
        LocalError: `newer_schema`: it has steps that we do not know.
    """
    current = await schema_version(connection)
    if current > len(steps):
        raise LocalError("newer_schema", f"schema {current}, this version knows {len(steps)}")
    return steps[current:]


async def migrate(
    connection: Connection, steps: Sequence[Migration], applied: Callable[[Migration], None] = lambda _: None
) -> None:
    """Apply the missing steps, each in a transaction of its own, while every other node waits.

    Args:
        connection: A patient one.
        applied: Called after each step.

    Raises:
        LocalError: `newer_schema`. Nothing was changed.
    """
    if not await missing_steps(connection, steps):
        return
    await connection.fetch(_LOCK)
    try:
        await connection.execute(_CREATE)
        for step in await missing_steps(connection, steps):
            await _apply(connection, step)
            applied(step)
    finally:
        if not connection.is_closed:
            await connection.fetch(_UNLOCK)


async def _apply(connection: Connection, step: Migration) -> None:
    await connection.execute("BEGIN")
    try:
        await connection.execute(step.sql)
        await connection.execute(_APPLIED, step.version, step.name)
        await connection.commit()
    except BaseException:
        if not connection.is_closed:
            await connection.execute("ROLLBACK")
        raise
