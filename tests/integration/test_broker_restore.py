"""A broker that was put back to an old backup is healed by its peers: what they know outweighs what it forgot."""

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.processes import BrokerProcess, Machine, Result, machine, start_broker, wait_until


def test_peers_give_back_what_a_restored_broker_has_lost(tmp_path: Path) -> None:
    """The roster's end, and a message that was accepted after the backup and delivered to nobody yet."""
    with (
        start_broker(tmp_path) as broker,
        machine(tmp_path, "alice") as alice,
        machine(tmp_path, "bob") as bob,
        machine(tmp_path, "carol") as carol,
    ):
        run(alice, "mesh", "create", "team", "--broker", broker.url, "--name", "alice")
        link = run(alice, "invite", "--uses", "2").json["link"]
        run(bob, "join", "-", "--name", "bob", stdin=link)
        back_up(broker, tmp_path / "backup.db")
        run(carol, "join", "-", "--name", "carol", stdin=link)
        run(bob, "daemon", "stop")
        message = run(alice, "send", "bob", "written after the backup", "--wait", "accepted").json

        broker.terminate()
        restore(broker, tmp_path / "backup.db")
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


def back_up(broker: BrokerProcess, copy: Path) -> None:
    """What `sqlite3 broker.db ".backup COPY"` does, while the broker runs."""
    with closing(sqlite3.connect(broker.database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def restore(broker: BrokerProcess, copy: Path) -> None:
    """As docs/SELF-HOST.md says, with the broker stopped; its key is a file of its own and stays."""
    for end in ("-wal", "-shm"):
        broker.database.with_name(broker.database.name + end).unlink(missing_ok=True)
    broker.database.write_bytes(copy.read_bytes())
