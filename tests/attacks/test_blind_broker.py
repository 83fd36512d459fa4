"""N01, N04: after every verb was used, the broker's disk, logs, memory and wire hold nothing that is the peers' own."""

import asyncio
import json
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path

import msgspec
import pytest

from claudemesh.broker.logs import FINGERPRINT_LENGTH
from claudemesh.broker.tracing.spans import SPANS
from claudemesh.cli.main import VERBS
from tests.agents import Host
from tests.attacks.canaries import CHANNEL_MARK, MARK, Canaries, canary, dump_memory
from tests.attacks.recording_proxy import RecordingProxy
from tests.attacks.search import search_bytes, search_file
from tests.collector import Collector, attributes, collector
from tests.processes import BrokerProcess, Machine, free_port, machine


class Household:
    """Alice, Bob, Bob's phone and Carol, each with a daemon, behind one recorded broker."""

    def __init__(self, directory: Path, broker: BrokerProcess, proxy: RecordingProxy, traces: Collector) -> None:
        self.directory = directory
        self.broker = broker
        self.proxy = proxy
        self.traces = traces
        self.canaries = Canaries()
        self.machines: dict[str, Machine] = {}
        self.plain_link = ""
        self.words = ""
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
        self._use_channels(alice, bob)
        self._administer(alice, bob)
        self._look_around(alice, bob, team)
        self._keep_keys(alice, bob)
        self._use_agents(alice, bob)
        self._move_a_local_mesh(carol)
        for name, one in self.machines.items():
            self.canaries.add_config(name, one.config_dir)
        self._remember_children()
        phone.ok("mesh", "leave", team, "--yes")
        alice.ok("revoke", canary("carols-laptop"), "--mesh", team, "--reason", "lost")
        bob.ok("recover", team, stdin=self.words)
        self.canaries.add_config("bob, recovered", bob.config_dir)
        used = {verb for one in self.machines.values() for verb in one.used}  # type: ignore[attr-defined]
        assert set(VERBS) - used == {"broker"}, "a verb is not driven here; the broker itself is what is searched"

    def _converse(self, alice: Machine, bob: Machine, team: str) -> None:
        to_bob = f"{canary('bob')}.{canary('bobs-desk')}"
        sent = alice.ok("send", to_bob, canary("a question in argv"), "--wait", "delivered", "--timeout", "30s")
        alice.ok("send", to_bob, "-", "--priority", "now", "--expires", "2d", stdin=canary("a text on stdin"))
        received = bob.inbox()
        bob.ok("send", canary("alice"), canary("an answer"), "--reply-to", received[0]["id"], "--wait", "delivered")
        alice.inbox("--all", "--sign-read")
        alice.ok("message", sent["id"])
        agent = Host(bob, canary("a host's id of it"), cwd=f"/home/{canary('project')}")
        agent.open(label="api", reach="wakeable")
        agent.status(about=canary("what it works at"), tags=[f"repo={canary('tag')}"])
        alice.ok("send", to_bob, canary("for the agent"), "--wait", "delivered")
        agent.confirm(agent.take("turn_end", adapter="claude-code.stop"))
        agent.ask("close")
        watching = bob.start("watch", "--json")
        alice.ok("send", to_bob, canary("while watching"), "--wait", "delivered", "--mesh", team)
        watching.terminate()

    def _use_channels(self, alice: Machine, bob: Machine) -> None:
        deploys, salaries, reviewers = (f"{CHANNEL_MARK}-{name}" for name in ("deploys", "salaries", "reviewers"))
        member = canary("bob")
        alice.ok("channel", "create", deploys, "--topic", canary("what goes out"))
        alice.ok("channel", "create", salaries, "--private")
        alice.ok("channel", "add", salaries, member)
        alice.ok("group", "create", reviewers)
        alice.ok("group", "add", reviewers, member)
        for address in (f"#{deploys}", f"#{salaries}", f"@{reviewers}"):
            alice.ok("send", address, canary("a post"))
        alice.ok("channel", "share", salaries, member)
        assert alice.run("channel", "history", salaries, "--json").exit_code == 0
        for verb in ("members", "leave"):
            alice.ok("channel", verb, salaries)
        alice.ok("group", "remove", reviewers, member)
        for kind in ("channel", "group"):
            bob.ok(kind, "list")

    def _administer(self, alice: Machine, bob: Machine) -> None:
        member = canary("bob")
        alice.ok("role", f"{member}.{canary('bobs-desk')}", "admin")
        alice.ok("grant", member, "now")
        alice.ok("grants")
        for verb in ("block", "unblock"):
            alice.ok(verb, member)
        for words in ("hold list", "pause", "resume", "dnd on", "dnd off", f"budget pair 50 --peer {member}", "budget"):
            alice.ok(*words.split())
        bob.ok("rekey")
        alice.ok("session", "--caps", "dm", "--label", canary("job"), "--out", str(alice.home / "job"))
        for words in ("mesh heads", "mesh log", "session list"):
            alice.run(*words.split(), "--json")

    def _look_around(self, alice: Machine, bob: Machine, team: str) -> None:
        for words in ("mesh list", f"mesh show {team}", "peers", "whoami", "invite list", "doctor"):
            alice.run(*words.split(), "--json")
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

    def _use_agents(self, alice: Machine, bob: Machine) -> None:
        """A session of an agent, under a name of its own; no host is installed in these surroundings."""
        alice.ok("send", f"{canary('bob')}.{canary('bobs-desk')}", canary("for the agent"), "--wait", "delivered")
        event = {"hook_event_name": "SessionStart", "session_id": "s", "cwd": f"/src/{canary('directory')}"}
        shown = bob.run("hook", "claude-code", stdin=json.dumps(event))
        assert canary("for the agent") in shown.stdout
        for words in ("install claude-code", "uninstall", "run true"):
            bob.run(*words.split(), "--json")
        bob.ok("statusline")
        sending = {"to": f"{canary('alice')}.{canary('alices-desk')}", "text": canary("sent by a tool")}
        said = bob.run("mcp", stdin=_tool_call("mesh_send", sending)).stdout
        assert '"isError":false' in said, said

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
        self.words = words if isinstance(words, str) else " ".join(words)  # type: ignore[arg-type]
        self.canaries.secrets["recovery words"] = self.words.encode()

    def _remember_children(self) -> None:
        """Command line and environment of every daemon, as anybody on the machine may list them."""
        for one in self.machines.values():
            process = Path(f"/proc/{one.daemon_pid()}")
            self.children += [(process / "cmdline").read_bytes(), (process / "environ").read_bytes()]


def _tool_call(tool: str, arguments: dict[str, str]) -> str:
    """What a host writes to its server to call one tool."""
    client = {"name": "test", "version": "1"}
    handshake = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
    call = {"name": tool, "arguments": arguments}
    requests = [("initialize", handshake, 1), ("notifications/initialized", {}, None), ("tools/call", call, 2)]
    lines = [{"jsonrpc": "2.0", "method": method, "params": params, "id": at} for method, params, at in requests]
    return "".join(json.dumps({key: one[key] for key in one if one[key] is not None}) + "\n" for one in lines)


def _labels(name: str) -> tuple[str, ...]:
    desk = {"alice": "alices-desk", "bob": "bobs-desk"}[name]
    return "--name", canary(name), "--device", canary(desk)


def _noting_verbs(one: Machine) -> Machine:
    """Remember which verbs are run on a machine."""
    one.used = set()  # type: ignore[attr-defined]
    command = one.command

    def noting(*args: str) -> list[str]:
        one.used.add(args[0])  # type: ignore[attr-defined]
        return command(*args)

    one.command = noting  # type: ignore[method-assign]
    return one


@asynccontextmanager
async def household(directory: Path) -> AsyncIterator[Household]:
    """The broker answers for the relay's address, and traces everything: one that traces less has less to betray."""
    port = free_port()
    async with RecordingProxy.before("127.0.0.1", port) as proxy:
        with ExitStack() as stack:
            traces = stack.enter_context(collector())
            options = ("--origin", proxy.url, "--otlp", traces.url)
            everything = {"OTEL_TRACES_SAMPLER": "always_on", "OTEL_BSP_SCHEDULE_DELAY": "100"}
            broker = BrokerProcess(directory / "broker", port, options, everything)
            await asyncio.to_thread(broker.start)
            stack.callback(broker.kill)
            one = Household(directory, broker, proxy, traces)
            for name in ("alice", "bob", "carol", "phone"):
                one.machines[name] = _noting_verbs(stack.enter_context(machine(directory, f"{canary('home')}-{name}")))
            yield one


@pytest.mark.timeout(400)
async def test_n01_n04_the_broker_ends_up_with_nothing_that_is_the_peers_own(tmp_path: Path) -> None:
    """N01, N04: one household uses every verb; then everything that the broker has or has seen is searched."""
    async with household(tmp_path) as one:
        await asyncio.to_thread(one.drive_every_verb)
        process = one.broker.process
        assert process is not None
        core = await asyncio.to_thread(dump_memory, process.pid, tmp_path)
        try:
            _check_files(one)
            _check_memory(one, core)
            _check_wire(one)
            _check_traces(one)
            _check_the_search_itself(one, core, tmp_path / "planted.db")
            _check_processes_and_logs(one)
        finally:
            core.unlink()


def _check_files(one: Household) -> None:
    """N01: database with its write-ahead log, key file and logs."""
    found = {path.name: hits for path in _broker_files(one) if (hits := one.canaries.found_in_file(path))}

    assert found == {}
    assert {path.name for path in _broker_files(one)} >= {"broker.db", "broker.db-wal", "broker.db.key", "broker.log"}


def _check_memory(one: Household, core: Path) -> None:
    """N01: a core dump of the process, taken while everybody was connected."""
    assert one.canaries.found_in_file(core) == set()
    assert core.stat().st_size > 1 << 20


def _check_wire(one: Household) -> None:
    """N01, N04: both directions of every connection, unmasked, with the heads of the HTTP requests."""
    assert one.canaries.found_in_bytes(one.proxy.everything()) == set()
    assert {message["t"] for _, message in one.proxy.messages()} >= {"hello", "claim", "append", "send", "push"}


def _check_traces(one: Household) -> None:
    """N01: what the broker has sent to the collector of traces holds no whole key either, and nothing but the list."""
    sent = b"".join(one.traces.traffic)
    listed = {f"claudemesh.{name}" for names in SPANS.values() for name in names}

    assert one.canaries.found_in_bytes(sent) == set()
    assert search_bytes(sent, _public_keys(one)) == set()
    assert {name for span in one.traces.spans() for name in attributes(span)} <= listed
    assert {span.name for span in one.traces.spans()} == {"commit", "handshake", "append", "lease"}
    assert {len(attributes(span)["claudemesh.mesh"]) for span in one.traces.spans("append")} == {FINGERPRINT_LENGTH}


def _check_the_search_itself(one: Household, core: Path, planted: Path) -> None:
    """N01, positive control: what is there is found, in each of these places, and a planted canary too."""
    public = _public_keys(one)
    secret = next(iter(one.canaries.secrets.values()))
    with closing(sqlite3.connect(planted)) as connection:
        connection.execute("CREATE TABLE mailbox (payload BLOB)")
        rows = [(os.urandom(5_000),), (canary("planted").encode().hex(),), (b"x" * 7 + secret,)]
        connection.executemany("INSERT INTO mailbox VALUES (?)", rows)
        connection.commit()

    databases = [path for path in _broker_files(one) if path.name.startswith("broker.db")]
    assert any(search_file(path, public) == set(public) for path in databases)
    assert search_file(core, public) == set(public)
    assert all(key in one.proxy.everything() for key in public.values())
    assert "a canary text" in one.canaries.found_in_file(planted)
    assert len(one.canaries.found_in_file(planted)) >= 2
    assert len(one.canaries.secrets) >= 25


def _check_processes_and_logs(one: Household) -> None:
    """N04: links come on standard input; no daemon sees them in its arguments or environment, no log holds them."""
    links = Canaries({name: secret for name, secret in one.canaries.secrets.items() if "link" in name})
    logs = [path for machine in one.machines.values() for path in machine.config_dir.glob("*.log*")]

    assert one.children
    assert [links.found_in_bytes(child.replace(MARK.encode(), b"")) for child in one.children if child] == [
        set() for child in one.children if child
    ]
    assert logs
    assert {path: found for path in logs if (found := one.canaries.found_in_file(path))} == {}


def _broker_files(one: Household) -> list[Path]:
    """Everything that the broker's process wrote: database, write-ahead log, key, logs."""
    return [path for path in one.broker.directory.rglob("*") if path.is_file()]


def _public_keys(one: Household) -> dict[str, bytes]:
    """What the broker must know, and where the search must therefore succeed."""
    config = msgspec.json.decode((one.machines["alice"].config_dir / "config.json").read_bytes())
    return {"alice's public key": config["meshes"][0]["peer"]["sign"].encode()}
