"""N01, N04: after every verb was used, the broker's disk, logs, memory and wire hold nothing that is the peers' own."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path

import msgspec
import pytest

from tests.attacks.canaries import MARK, Canaries, canary, dump_memory
from tests.attacks.recording_proxy import RecordingProxy
from tests.attacks.search import search_file
from tests.processes import BrokerProcess, Machine, free_port, machine

TRIES = 3


class Household:
    """Alice, Bob, Bob's phone and Carol, each with a daemon, behind one recorded broker."""

    def __init__(self, directory: Path, broker: BrokerProcess, proxy: RecordingProxy) -> None:
        self.directory = directory
        self.broker = broker
        self.proxy = proxy
        self.canaries = Canaries()
        self.machines: dict[str, Machine] = {}
        self.plain_link = ""
        self.children: list[bytes] = []

    def drive_every_verb(self) -> None:
        """What people do, in the order in which they do it; each text and name in it is a canary."""
        alice, bob, carol, phone = (self.machines[name] for name in ("alice", "bob", "carol", "phone"))
        team, address = canary("team"), self.proxy.url
        created = alice.ok("mesh", "create", team, "--broker", address, *_labels("alice"))
        self._add_words(created)
        self.plain_link = self._link(alice, "an open link", "invite", "--uses", "3", "--mesh", team)
        bob.ok("join", "-", *_labels("bob"), stdin=self.plain_link)
        personal = self._link(alice, "a personal link", "invite", "--for", canary("carol"), "--mesh", team)
        carol.ok("join", "-", "--device", canary("carols-laptop"), stdin=personal)
        device = self._link(bob, "a device link", "device", "link")
        phone.ok("join", "-", "--device", canary("phone"), stdin=device)
        self._converse(alice, bob, team)
        self._look_around(alice, bob, team)
        self._keep_keys(alice, bob)
        self._move_a_local_mesh(carol)
        for name, one in self.machines.items():
            self.canaries.add_config(name, one.config_dir)
        self._remember_children()
        phone.ok("mesh", "leave", team, "--yes")

    def _converse(self, alice: Machine, bob: Machine, team: str) -> None:
        to_bob = f"{canary('bob')}.{canary('bobs-desk')}"
        sent = alice.ok("send", to_bob, canary("a question in argv"), "--wait", "delivered", "--timeout", "30s")
        alice.ok("send", to_bob, "-", "--priority", "now", "--expires", "2d", stdin=canary("a text on stdin"))
        received = bob.inbox()
        bob.ok("send", canary("alice"), canary("an answer"), "--reply-to", received[0]["id"], "--wait", "delivered")
        alice.inbox("--all", "--sign-read")
        alice.ok("message", sent["id"])
        watching = bob.start("watch", "--json")
        alice.ok("send", to_bob, canary("while watching"), "--wait", "delivered", "--mesh", team)
        watching.terminate()

    def _look_around(self, alice: Machine, bob: Machine, team: str) -> None:
        for verb in (["mesh", "list"], ["mesh", "show", team], ["peers"], ["whoami"], ["invite", "list"], ["doctor"]):
            alice.run(*verb, "--json")
        bob.ok("verify", canary("alice"))
        spare = self._link(alice, "a revoked link", "invite", "--qr", str(alice.home / "qr.png"))
        listed = alice.ok("invite", "list")
        alice.ok("invite", "revoke", listed["invites"][-1]["id"])
        assert spare
        bob.run("completion", "bash")
        for verb in ("status", "logs", "stop", "start"):
            bob.run("daemon", verb, "--json")

    def _keep_keys(self, alice: Machine, bob: Machine) -> None:
        passphrase = bob.home / "passphrase"
        passphrase.write_text(canary("passphrase") + "\n")
        passphrase.chmod(0o600)
        bob.ok("backup", str(bob.home / "backup"), "--passphrase-file", str(passphrase))
        bob.run("restore", str(bob.home / "backup"), "--passphrase-file", str(passphrase), "--force", "--json")
        bob.inbox("--all")

    def _move_a_local_mesh(self, carol: Machine) -> None:
        carol.ok("up", "--name", canary("carol"), "--device", canary("carols-desk"))
        local = self._link(carol, "a local link", "invite", "--mesh", "local")
        assert local
        carol.ok("mesh", "move", "local", self.proxy.url)
        carol.ok("mesh", "show", "local")

    def _link(self, one: Machine, purpose: str, *verb: str) -> str:
        link = str(one.ok(*verb)["link"])
        self.canaries.add_link(purpose, link)
        return link

    def _add_words(self, created: dict[str, object]) -> None:
        words = created.get("recovery_words") or created.get("recovery")
        assert words, created
        self.canaries.secrets["recovery words"] = (words if isinstance(words, str) else " ".join(words)).encode()  # type: ignore[arg-type]

    def _remember_children(self) -> None:
        """Command line and environment of every daemon, as anybody on the machine may list them."""
        for one in self.machines.values():
            process = Path(f"/proc/{one.daemon_pid()}")
            self.children += [(process / "cmdline").read_bytes(), (process / "environ").read_bytes()]


def _labels(name: str) -> tuple[str, ...]:
    desk = {"alice": "alices-desk", "bob": "bobs-desk"}[name]
    return "--name", canary(name), "--device", canary(desk)


@asynccontextmanager
async def household(directory: Path) -> AsyncIterator[Household]:
    """The broker answers for the relay's address; its environment holds a word that its memory must show."""
    port = free_port()
    async with RecordingProxy.before("127.0.0.1", port) as proxy:
        broker = BrokerProcess(directory / "broker", port, ("--origin", proxy.url))
        with ExitStack() as stack:
            await asyncio.to_thread(broker.start)
            stack.callback(broker.kill)
            one = Household(directory, broker, proxy)
            for name in ("alice", "bob", "carol", "phone"):
                one.machines[name] = stack.enter_context(machine(directory, f"{canary('home')}-{name}"))
            yield one


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Household]:
    """The household after all verbs, with the broker's memory dumped while it still runs."""
    directory = tmp_path_factory.mktemp("n01")

    async def play() -> Household:
        async with household(directory) as one:
            await asyncio.to_thread(one.drive_every_verb)
            assert one.broker.process is not None
            one.core = await asyncio.to_thread(dump_memory, one.broker.process.pid, directory)  # type: ignore[attr-defined]
            return one

    yield asyncio.run(play())
    for core in directory.glob("core.*"):
        core.unlink()


def broker_files(one: Household) -> list[Path]:
    """Everything that the broker's process wrote: database, write-ahead log, key, logs."""
    return [path for path in one.broker.directory.rglob("*") if path.is_file()]


def peer_ids(one: Household) -> dict[str, bytes]:
    """What the broker must know, and where the search must therefore succeed: public keys."""
    config = msgspec.json.decode((one.machines["alice"].config_dir / "config.json").read_bytes())
    return {"alice's public key": config["meshes"][0]["peer"]["sign"].encode()}


def test_n01_the_brokers_files_hold_no_text_no_name_and_no_secret(searched: Household) -> None:
    """N01: database with its write-ahead log, key file and logs."""
    found = {path.name: hits for path in broker_files(searched) if (hits := searched.canaries.found_in_file(path))}

    assert found == {}
    assert {path.name for path in broker_files(searched)} >= {"broker.db", "broker.db.key", "broker.log"}


def test_n01_the_brokers_memory_holds_no_text_no_name_and_no_secret(searched: Household) -> None:
    """N01: a core dump of the process, taken while everybody was connected."""
    core: Path = searched.core  # type: ignore[attr-defined]

    assert searched.canaries.found_in_file(core) == set()
    assert core.stat().st_size > 1 << 20


def test_n01_the_wire_holds_no_text_no_name_and_no_secret(searched: Household) -> None:
    """N01, N04: both directions of every connection, unmasked, with the heads of the HTTP requests."""
    wire = searched.proxy.everything()

    assert searched.canaries.found_in_bytes(wire) == set()
    assert {message["t"] for _, message in searched.proxy.messages()} >= {"hello", "claim", "append", "send", "push"}


def test_n01_the_search_finds_what_is_there(searched: Household, tmp_path: Path) -> None:
    """N01, positive control: a public key is found in the database, in memory and on the wire; a planted canary too."""
    public, core = peer_ids(searched), searched.core  # type: ignore[attr-defined]
    planted = tmp_path / "planted.db"
    with closing(sqlite3.connect(planted)) as connection:
        connection.execute("CREATE TABLE mailbox (payload BLOB)")
        secret = next(iter(searched.canaries.secrets.values()))
        rows = [(os.urandom(5_000),), (canary("planted").encode().hex(),), (b"x" * 7 + secret,)]
        connection.executemany("INSERT INTO mailbox VALUES (?)", rows)
        connection.commit()

    databases = [path for path in broker_files(searched) if path.name.startswith("broker.db")]
    assert any(search_file(path, public) == set(public) for path in databases)
    assert search_file(core, public) == set(public)
    assert public["alice's public key"] in searched.proxy.everything()
    assert "a canary text" in searched.canaries.found_in_file(planted)
    assert len(searched.canaries.found_in_file(planted)) >= 2
    assert len(searched.canaries.secrets) >= 25


def test_n04_no_link_is_in_the_arguments_or_environment_of_a_daemon(searched: Household) -> None:
    """N04: links come on standard input; the daemon that is started for them never sees them so."""
    names = {name: secret for name, secret in searched.canaries.secrets.items() if "link" in name}
    links = Canaries(names)

    assert searched.children
    for one in searched.children:
        assert links.found_in_bytes(one.replace(MARK.encode(), b"")) == set()


def test_n04_no_link_is_in_a_log(searched: Household) -> None:
    """N04: of the daemons or of the broker; nor any text or key."""
    logs = [path for one in searched.machines.values() for path in one.config_dir.glob("*.log*")]

    assert logs
    assert {path: found for path in logs if (found := searched.canaries.found_in_file(path))} == {}
