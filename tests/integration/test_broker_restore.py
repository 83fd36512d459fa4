"""A broker that was put back to an old backup is healed by its peers: what they know outweighs what it forgot."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.postgres import PostgresServer, postgres_server, program
from tests.processes import BrokerProcess, Machine, Result, installed, machine, start_broker, wait_until


class Database(Protocol):
    """A broker's database, and what docs/SELF-HOST.md says of its backups."""

    options: tuple[str, ...]
    """With which the broker is started."""

    def back_up(self, broker: BrokerProcess) -> None:
        """While the broker runs."""

    def restore(self, broker: BrokerProcess) -> None:
        """With the broker stopped; its key is a file of its own and stays."""


class SqliteFile:
    """Copied by the program that users have."""

    options = ()

    def __init__(self, directory: Path) -> None:
        self._copy = directory / "backup.db"

    def back_up(self, broker: BrokerProcess) -> None:
        subprocess.run([installed("sqlite3", "sqlite3"), broker.database, f".backup '{self._copy}'"], check=True)

    def restore(self, broker: BrokerProcess) -> None:
        for end in ("-wal", "-shm"):
            broker.database.with_name(broker.database.name + end).unlink(missing_ok=True)
        broker.database.write_bytes(self._copy.read_bytes())


class PostgresDatabase:
    """Dumped and restored by PostgreSQL's own programs."""

    def __init__(self, directory: Path, server: PostgresServer) -> None:
        self._url = server.database()
        self._copy = directory / "claudemesh.dump"
        self.options = ("--database", self._url, "--key", str(directory / "broker.key"))

    def back_up(self, broker: BrokerProcess) -> None:
        self._run("pg_dump", "--format=custom", f"--file={self._copy}", self._url)

    def restore(self, broker: BrokerProcess) -> None:
        self._run("pg_restore", "--clean", "--if-exists", "--single-transaction", f"--dbname={self._url}", self._copy)

    def _run(self, name: str, *arguments: object) -> None:
        subprocess.run([program(name), *map(str, arguments)], check=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        yield SqliteFile(tmp_path)
        return
    with postgres_server() as server:
        yield PostgresDatabase(tmp_path, server)


def test_peers_give_back_what_a_restored_broker_has_lost(tmp_path: Path, database: Database) -> None:
    """The roster's end, and a message that was accepted after the backup and delivered to nobody yet."""
    with (
        start_broker(tmp_path, *database.options) as broker,
        machine(tmp_path, "alice") as alice,
        machine(tmp_path, "bob") as bob,
        machine(tmp_path, "carol") as carol,
    ):
        run(alice, "mesh", "create", "team", "--broker", broker.url, "--name", "alice")
        link = run(alice, "invite", "--uses", "2").json["link"]
        run(bob, "join", "-", "--name", "bob", stdin=link)
        database.back_up(broker)
        run(carol, "join", "-", "--name", "carol", stdin=link)
        run(bob, "daemon", "stop")
        message = run(alice, "send", "bob", "written after the backup", "--wait", "accepted").json

        broker.terminate()
        database.restore(broker)
        broker.start()

        wait_until(
            lambda: "written after the backup" in run(bob, "inbox", "--all").stdout, "bob has the message", within_s=60
        )
        assert run(bob, "inbox", "--all").stdout.count("written after the backup") == 1
        wait_until(lambda: stage_of(alice, message["id"]) == "delivered", "alice knows it")
        assert {"alice", "bob", "carol"} <= {one["user"] for one in run(bob, "peers").json["peers"]}
        assert run(carol, "send", "alice", "still a member", "--wait", "delivered").exit_code == 0


def run(one: Machine, *args: str, stdin: str = "") -> Result:
    """A command that has to succeed, with its answer as JSON."""
    done = one.run(*args, "--json", stdin=stdin)
    assert done.exit_code == 0, done.stderr
    return done


def stage_of(one: Machine, message_id: str) -> str:
    return str(run(one, "message", message_id).json["stage"])
