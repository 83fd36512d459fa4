"""A process that stops answering without ending: SIGSTOP, as a suspended laptop or a paused container."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.daemon.ipc import Client
from claudemesh.protocol import limits
from claudemesh.protocol.delivery import Stage
from claudemesh.types import MessageId
from tests.faults.peers import enrol, link_down, opened
from tests.processes import BrokerProcess, Machine, introduce, machine, start_broker, wait_until

MANY = 300
"""More than a broker leases to one link at a time."""
SILENCE_MS = 3_000
CHECK_S = 2
CHECK = f"""
from claudemesh.peer.credentials import find_credentials
find_credentials("the detectors are loaded now")
print("checking", flush=True)
print(find_credentials("an honest line\\n" * 5_000, {CHECK_S}))
"""
"""Takes about half a second of its own."""


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process gets no time for as long as the block lasts; its sockets stay open."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def pid_of(broker: BrokerProcess) -> int:
    assert broker.process is not None
    return broker.process.pid


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BrokerProcess]:
    """A broker, and limits on silence that are seconds instead of minutes, on both sides."""
    monkeypatch.setattr(limits, "PRESENCE_LEASE_MS", SILENCE_MS)
    monkeypatch.setattr(limits, "PING_INTERVAL_MS", SILENCE_MS // 5)
    monkeypatch.setattr(limits, "HANDSHAKE_TIMEOUT_MS", SILENCE_MS)
    with start_broker(tmp_path, "--limit", f"presence_lease_ms={SILENCE_MS}") as running:
        yield running


def test_a_process_that_slept_while_it_checked_a_text_finds_nothing_in_it() -> None:
    """Only time that the check itself takes counts: an honest message is not held because a laptop was closed."""
    checking = [sys.executable, "-c", CHECK]
    with subprocess.Popen(checking, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "checking\n"
        with frozen(process.pid):
            time.sleep(CHECK_S * 1.5)
        findings, _ = process.communicate()

    assert findings == "()\n"


async def test_peers_give_up_a_broker_that_is_silent_and_lose_nothing(broker: BrokerProcess, tmp_path: Path) -> None:
    """Both notice the silence; what was sent before and meanwhile arrives once when the broker goes on."""
    homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
    async with opened(homes.alice) as alice, opened(homes.bob) as bob:
        await asyncio.gather(alice.wait_connected(), bob.wait_connected())
        with frozen(pid_of(broker)):
            sent = [(await alice.send("bob.box", f"{number}")).id for number in range(50)]
            reasons = await asyncio.gather(link_down(alice), link_down(bob))
            sent += [(await alice.send("bob.box", f"{number}")).id for number in range(50, 100)]
            while_frozen = {(await alice.status(one)).recipients[0].shown.stage for one in sent}

        for one in sent:
            await alice.wait_for(one, Stage.DELIVERED)

        assert {reason.code for reason in reasons} <= {"handshake_timeout", "timeout"}
        assert while_frozen == {Stage.QUEUED}
        assert sorted(one.id for one in await bob.inbox(limit=1_000)) == sorted(sent)


async def test_a_short_pause_of_the_broker_ends_no_link(broker: BrokerProcess, tmp_path: Path) -> None:
    """Less than the lease on both sides: nobody reconnects, and everything goes on where it stopped."""
    homes = await enrol(tmp_path / "alice", tmp_path / "bob", broker.url)
    async with opened(homes.alice) as alice, opened(homes.bob) as bob:
        await asyncio.gather(alice.wait_connected(), bob.wait_connected())
        lost = asyncio.gather(link_down(alice), link_down(bob))
        with frozen(pid_of(broker)):
            sent = [(await alice.send("bob.box", f"{number}")).id for number in range(20)]
            await asyncio.sleep(SILENCE_MS / 10_000)

        for one in sent:
            await alice.wait_for(one, Stage.DELIVERED)

        assert not lost.done()
        lost.cancel()


class Team(NamedTuple):
    """Two users with daemons of their own."""

    broker: BrokerProcess
    alice: Machine
    bob: Machine


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    with ExitStack() as stack:
        running = stack.enter_context(start_broker(tmp_path))
        alice, bob = (stack.enter_context(machine(tmp_path, name)) for name in ("alice", "bob"))
        introduce(running, alice, bob, devices=("box", "box"))
        yield Team(running, alice, bob)


def send_many(one: Machine, to: str) -> list[MessageId]:
    """Send more than one link takes at a time."""
    with Client(ConfigDir(one.config_dir).socket(), 60) as client:
        return [client.call("send", {"to": to, "text": f"{number}"})["id"] for number in range(MANY)]


def inbox_of(one: Machine) -> list[Any]:
    """The ids of everything that has arrived."""
    with Client(ConfigDir(one.config_dir).socket(), 60) as client:
        return [event["message"]["id"] for event in client.stream("inbox", {"unread": False, "limit": 10_000})]


def all_delivered(one: Machine, ids: list[MessageId]) -> bool:
    """Whether the recipient's receipt of every message has come back."""
    with Client(ConfigDir(one.config_dir).socket(), 60) as client:
        return all("delivered" in {s["stage"] for s in client.call("message", {"id": i})["steps"]} for i in ids)


def test_a_frozen_recipient_gets_everything_once_when_it_goes_on(team: Team) -> None:
    """Its link stays open and takes nothing: the broker keeps what is not acknowledged."""
    with frozen(team.bob.daemon_pid()):
        ids = send_many(team.alice, "bob.box")

    wait_until(lambda: all_delivered(team.alice, ids), "everything is delivered")

    assert sorted(inbox_of(team.bob)) == sorted(ids)


def test_a_recipient_that_slept_through_a_crash_of_the_broker_gets_everything_once(team: Team) -> None:
    """What was pushed into its socket by a broker that is dead since comes again from the one that lives."""
    with frozen(team.bob.daemon_pid()):
        ids = send_many(team.alice, "bob.box")
        team.broker.kill()
        team.broker.start()

    wait_until(lambda: all_delivered(team.alice, ids), "everything is delivered", 60)

    assert sorted(inbox_of(team.bob)) == sorted(ids)


def test_a_sender_that_slept_sends_each_message_once(team: Team) -> None:
    """The broker's answers wait in its socket; none of its messages is stored anew for a second delivery."""
    ids = send_many(team.alice, "bob.box")
    with frozen(team.alice.daemon_pid()):
        wait_until(lambda: len(inbox_of(team.bob)) > 0, "some have arrived")
        team.broker.kill()
        team.broker.start()

    wait_until(lambda: all_delivered(team.alice, ids), "everything is delivered", 60)

    assert sorted(inbox_of(team.bob)) == sorted(ids)
