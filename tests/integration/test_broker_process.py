"""A broker as a process: kill -9, SIGTERM, full disks, its log, its key (docs/spec/broker.md §1, §7)."""

import asyncio
import json
import re
import resource
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from claudemesh.broker.app import Broker, Listen, Settings
from claudemesh.errors import LocalError, Refused, UsageError
from claudemesh.protocol import codec, messages
from claudemesh.protocol.link import Founder
from tests import wire_client as wire
from tests.brokers import BrokerProcess, serving, settings


async def test_what_was_accepted_survives_kill_9_and_is_delivered_once(tmp_path: Path) -> None:
    """The process dies between `accepted` and delivery; nothing is lost, nothing comes twice."""
    async with BrokerProcess(tmp_path) as broker:
        owner, other = await wire.mesh_of(broker.url, 2)
        letters = [owner.envelope(other.id) for _ in range(50)]
        accepted: set[str] = set()
        async with wire.member(broker.url, owner) as sending:
            for letter in letters:
                await sending.send(letter)
            while len(accepted) < 20:
                accepted |= {row["id"] for row in await sending.accepted()}
            await broker.kill()
        await broker.start()
        async with wire.member(broker.url, other) as receiving:
            assert receiving.opened is not None
            deliveries = await receiving.deliveries(receiving.opened.queued)
            await receiving.acknowledge(*deliveries)
            nothing_more = await receiving.quiet(messages.Push)

    ids = [codec.decode_send(bytes(one.e)).id for one in deliveries]
    assert accepted <= set(ids)
    assert len(ids) == len(set(ids))
    assert nothing_more


async def test_sigterm_tells_every_link_when_to_come_back_and_keeps_what_was_accepted(tmp_path: Path) -> None:
    """Links end with `draining` and WebSocket code 1012, well within the drain timeout."""
    async with BrokerProcess(tmp_path) as broker:
        owner, other = await wire.mesh_of(broker.url, 2)
        async with wire.member(broker.url, owner) as link:
            letter = owner.envelope(other.id)
            await link.submit(letter)
            started_at = wire.now()
            exit_code, closing = await asyncio.gather(broker.terminate(), link.ended())
            took_ms = wire.now() - started_at
            close_code = link.pipe.close_code
        await broker.start()
        async with wire.member(broker.url, other) as receiving:
            [delivery] = await receiving.deliveries(1)

    assert exit_code == 0
    assert isinstance(closing, messages.Closing)
    assert (closing.code, close_code) == ("draining", 1012)
    assert closing.retry_after_ms is not None
    assert took_ms < 5_000
    assert codec.decode_send(bytes(delivery.e)).id == letter.id


async def test_sigterm_ends_in_time_although_a_link_reads_nothing(tmp_path: Path) -> None:
    async with BrokerProcess(tmp_path) as broker:
        owner, other = await wire.mesh_of(broker.url, 2)
        async with wire.member(broker.url, owner) as sending, wire.member(broker.url, other) as stuck:
            stuck.pipe._socket._conn.transport.pause_reading()
            for _ in range(10):
                await sending.submit(owner.envelope(other.id, size=400_000))
            started_at = wire.now()
            exit_code = await broker.terminate()
            took_ms = wire.now() - started_at

    assert exit_code == 0
    assert took_ms < 7_000


async def test_full_disk_refuses_before_accepting_and_loses_nothing(tmp_path: Path) -> None:
    """The store cannot grow: the sender is told to try later; what was accepted before is still delivered."""
    async with BrokerProcess(tmp_path) as broker:
        owner, other = await wire.mesh_of(broker.url, 2)
        async with wire.member(broker.url, owner) as sending:
            kept = owner.envelope(other.id)
            await sending.submit(kept)
            assert broker.process is not None
            size = (tmp_path / "broker.db-wal").stat().st_size
            resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            refused: list[Refused] = []
            for _ in range(5):
                with pytest.raises(Refused) as caught:
                    await sending.submit(owner.envelope(other.id, size=500_000))
                refused.append(caught.value)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{broker.port}/ready") as ready:
                    readiness = ready.status
            resource.prlimit(
                broker.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
            again = owner.envelope(other.id)
            await sending.submit(again)
        async with wire.member(broker.url, other) as receiving:
            deliveries = await receiving.deliveries(2)

    assert {error.code for error in refused} == {"storage"}
    assert all(error.retry_after_ms for error in refused)
    assert readiness == 503
    assert [codec.decode_send(bytes(one.e)).id for one in deliveries] == [kept.id, again.id]


async def test_log_holds_no_payload_name_link_key_or_address(tmp_path: Path) -> None:
    """Every line is JSON with an event; nothing in it that a peer sent, and no key longer than eight digits."""
    async with BrokerProcess(tmp_path, "--log-level", "debug") as broker:
        owner, other = await wire.mesh_of(broker.url, 2)
        letter = owner.envelope(other.id)
        async with wire.member(broker.url, owner, sid="canary-session-name") as sending:
            await sending.submit(letter)
            await sending.send(b'{"t":"canary-frame"}')
            await sending.send(b"canary-garbage")
            await sending.ended()
        async with wire.dial_raw(broker.url) as link:
            await link.send(b'{"t":"hello","canary":1}')
            await link.ended()
        await broker.terminate()
    log = (tmp_path / "broker.log").read_text()

    events = [json.loads(line) for line in log.splitlines()]
    assert {"started", "stopped"} <= {event["event"] for event in events}
    assert "canary" not in log
    assert "127.0.0.1" not in log
    assert letter.ct[:16] not in log
    assert not re.search(r"[0-9a-f]{9,}", log)


async def test_two_brokers_never_share_a_database_or_a_socket(tmp_path: Path) -> None:
    async with serving(tmp_path, unix=tmp_path / "b.sock"):
        with pytest.raises(LocalError) as locked:
            await Broker(settings(tmp_path)).__aenter__()
        with pytest.raises(UsageError) as taken:
            await Broker(Settings(unix=tmp_path / "b.sock", log_file=tmp_path / "2.log")).__aenter__()

    assert locked.value.code == "config_locked"
    assert "another broker" in taken.value.detail


async def test_socket_that_a_killed_broker_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "b.sock"
    async with BrokerProcess(tmp_path, "--unix", str(path)) as broker:
        await broker.kill()
        assert path.exists()
        await broker.start()
        [owner] = await wire.mesh_of(f"unix://{path}", 1)

    assert owner.roster.seq == 0


async def test_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    async with serving(tmp_path) as broker:
        first = broker.id
    async with serving(tmp_path) as broker:
        second = broker.id
    key = tmp_path / "broker.db.key"
    mode = key.stat().st_mode & 0o777
    key.chmod(0o640)
    with pytest.raises(LocalError) as refused:
        await Broker(settings(tmp_path)).__aenter__()

    assert first == second
    assert mode == 0o600
    assert refused.value.code == "config_mode"


def test_listening_to_others_without_a_name_of_its_own_is_refused() -> None:
    """Without an origin a hello could be relayed."""
    with pytest.raises(UsageError) as refused:
        Settings(listen=Listen("0.0.0.0", 7900)).check()

    assert "--origin" in refused.value.detail


@pytest.mark.parametrize(
    "arguments",
    [
        ["--listen", "nowhere"],
        ["--listen", "0.0.0.0:0"],
        ["--database", "mysql://x"],
        ["--origin", "http://x/ws"],
        ["--limit", "mailbox_rows=many"],
        ["--limit", "nonsense=1"],
        ["--key", "/nonexistent/dir/key"],
    ],
    ids=" ".join,
)
def test_unusable_option_ends_with_a_message_and_no_traceback(tmp_path: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-c", "from claudemesh.cli.broker import broker; broker()"]

    ended = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=30)

    assert ended.returncode in (2, 3)
    assert "claudemesh broker: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_bus_with_a_password_comes_by_the_environment(tmp_path: Path) -> None:
    """Arguments of a process are for every user to read. A file has no other nodes, so that this one is refused."""
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "claudemesh", "broker", "--database", f"sqlite:///{tmp_path / 'broker.db'}"],
        env={"PATH": "/usr/bin:/bin", "CLAUDEMESH_BUS": "nats://mesh:hunter2@127.0.0.1:4222"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == UsageError.exit_code
    assert "--bus is for several nodes" in ended.stderr
    assert "hunter2" not in ended.stderr + ended.stdout


async def test_power_cut_while_uploading_leaves_a_log_that_can_be_continued(tmp_path: Path) -> None:
    """Entries are stored frame by frame, each frame whole."""
    owner = wire.Identity()
    async with BrokerProcess(tmp_path) as broker:
        async with wire.dial(broker.url, Founder()) as link:
            assert link.greeted is not None
            key = link.greeted.broker
            log = [owner.genesis(key)]
            owner.follow(log)
            while len(log) < 60:
                log.append(owner.entry("broker", bk=key))
                owner.follow(log[-1:])
            await link.append(log[0])
            await link.append(*log[1:20])
            await broker.kill()
        await broker.start()
        async with wire.dial(broker.url, Founder()) as link:
            appended = await link.append(log[0])
            await link.append(*log[appended.seq + 1 :])
        async with wire.member(broker.url, owner) as link:
            last = await link.request(messages.Log, messages.Sync, seq=59)

    assert appended.seq == 19
    assert last.entries == log[59:]


async def test_store_holds_no_row_after_the_acknowledgement(tmp_path: Path) -> None:
    """The ciphertext is gone from the table as soon as its recipient has recorded it."""
    async with serving(tmp_path) as broker:
        owner, other = await wire.mesh_of(broker.url, 2)
        async with wire.member(broker.url, owner) as sending, wire.member(broker.url, other) as receiving:
            await sending.submit(owner.envelope(other.id))
            await receiving.acknowledge(*await receiving.deliveries(1))
    with sqlite3.connect(tmp_path / "broker.db") as database:
        [(rows,)] = database.execute("SELECT count(*) FROM mailbox").fetchall()

    assert rows == 0


def test_port_that_is_taken_is_named_with_the_reason(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from claudemesh.cli.broker import broker; broker()"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        command += ["--listen", listen, "--database", f"sqlite:///{tmp_path / 'b.db'}"]

        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)

    assert ended.returncode == 2
    assert f"cannot listen on {listen}" in ended.stderr
