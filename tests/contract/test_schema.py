"""The schema of a broker's database, and `claudemesh broker migrate`."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from claudemesh.broker.store import schema
from claudemesh.broker.store.postgres import DatabaseUrl, PostgresStore
from claudemesh.cli.main import cli
from claudemesh.errors import LocalError
from tests.contract.test_store import BOB, LINK, MESH, NOW, submission
from tests.postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        found: str = request.getfixturevalue("empty_database")
        return found
    return f"sqlite:///{tmp_path / 'broker.db'}"


def migrate(*args: str) -> Result:
    return CliRunner().invoke(cli, ["broker", "migrate", *args])


def test_dry_run_names_the_missing_steps_and_changes_nothing(url: str) -> None:
    first = migrate("--dry-run", "--database", url, "--json")
    second = migrate("--dry-run", "--database", url)

    answer = json.loads(first.stdout)
    assert (first.exit_code, answer["schema"], answer["applied"]) == (0, 0, [])
    assert answer["missing"][0] == "0001_store.sql"
    assert f"schema 0 of {answer['known']}" in second.stdout


def test_migrating_applies_each_step_once_and_says_so(url: str) -> None:
    first = migrate("--database", url, "--json")
    again = migrate("--database", url, "--json")

    done, nothing = json.loads(first.stdout), json.loads(again.stdout)
    assert done["applied"][0] == "0001_store.sql"
    assert (done["schema"], done["missing"]) == (done["known"], [])
    assert "applied 0001_store.sql" in first.stderr
    assert nothing["applied"] == []


def test_database_that_is_not_there_is_an_error_with_a_hint(postgres: PostgresServer) -> None:
    result = migrate("--database", postgres.url("missing"))

    assert result.exit_code == LocalError.exit_code
    assert "database_refused" in result.stderr
    assert "check account, password, database" in result.stderr


def test_database_of_a_newer_version_is_left_alone(postgres: PostgresServer, empty_database: str) -> None:
    """By the command and by a broker; both say which version they know."""
    migrate("--database", empty_database)
    postgres.sql("INSERT INTO schema_migrations (version, name) VALUES (99, '0099_later.sql')", empty_database)

    result = migrate("--database", empty_database)
    with pytest.raises(LocalError) as refused:
        asyncio.run(PostgresStore(DatabaseUrl(empty_database)).open())

    assert result.exit_code == LocalError.exit_code
    assert "newer_schema: schema 99, this version knows" in result.stderr
    assert refused.value.code == "newer_schema"


async def test_nodes_that_start_at_once_migrate_once(postgres: PostgresServer, empty_database: str) -> None:
    """All of them come up on one schema."""
    stores = [PostgresStore(DatabaseUrl(empty_database)) for _ in range(6)]

    await asyncio.gather(*(store.open() for store in stores))

    await asyncio.gather(*(store.ping() for store in stores))
    await asyncio.gather(*(store.close() for store in stores))
    applied = postgres.sql("SELECT version FROM schema_migrations ORDER BY version", empty_database).split()
    known = (await schema.look(DatabaseUrl(empty_database))).known
    assert applied == [str(number) for number in range(1, known + 1)]


async def test_step_that_fails_leaves_the_schema_before_it(postgres: PostgresServer, empty_database: str) -> None:
    """What stands in the way is not touched, and once it is gone the step is applied whole."""
    postgres.sql("CREATE TABLE presence (mine text)", empty_database)

    with pytest.raises(Exception, match="presence"):
        await PostgresStore(DatabaseUrl(empty_database)).open()
    tables = postgres.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1", empty_database)
    postgres.sql("DROP TABLE presence", empty_database)
    store = PostgresStore(DatabaseUrl(empty_database))
    await store.open()
    await store.close()

    assert tables.split() == ["presence", "schema_migrations"]


async def test_running_broker_goes_on_beside_a_step_that_adds(postgres: PostgresServer, empty_database: str) -> None:
    """A newer version may add columns with defaults, tables and indexes under an older one that works."""
    store = PostgresStore(DatabaseUrl(empty_database))
    await store.open()
    await store.lease(MESH, BOB, LINK, NOW, 1)
    await store.append([submission()], NOW)

    for statement in (
        "ALTER TABLE mailbox ADD COLUMN weight bigint NOT NULL DEFAULT 1",
        "ALTER TABLE meshes ADD COLUMN note text",
        "ALTER TABLE audit_log ADD COLUMN origin text NOT NULL DEFAULT ''",
        "ALTER TABLE presence ADD COLUMN host text NOT NULL DEFAULT ''",
        "CREATE INDEX mailbox_weight ON mailbox (weight)",
        "INSERT INTO schema_migrations (version, name) VALUES (99, '0099_later.sql')",
    ):
        await asyncio.to_thread(postgres.sql, statement, empty_database)
    await store.append([submission()], NOW)
    rows = await store.lease(MESH, BOB, LINK, NOW, 10)
    await store.close()

    assert len(rows) == 2
