"""A daemon whose configuration directory is on a full disk: it says so in words, and keeps what it has."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from claudemesh.daemon.ipc import AnsweredError
from tests.faults.small_disk import SmallDisk, small_disk
from tests.faults.victims import DaemonVictim, start
from tests.processes import Machine, introduce, machine, start_broker, wait_until

LARGE = "x" * 200_000
MANY = 200
"""More large messages than the disk holds."""


class Place(NamedTuple):
    """Bob, who has everything on a small disk, and Alice."""

    disk: SmallDisk
    alice: Machine
    bob: Machine
    daemon: DaemonVictim


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(tmp_path))
        broker = stack.enter_context(start_broker(tmp_path))
        alice = stack.enter_context(machine(tmp_path, "alice"))
        bob = stack.enter_context(machine(disk.path, "bob"))
        bob.config_dir.mkdir(mode=0o700)
        daemon = DaemonVictim(bob, "bob")
        start(daemon)
        stack.callback(daemon.kill)
        introduce(broker, alice, bob, devices=("box", "box"))
        yield Place(disk, alice, bob, daemon)


def fill(place: Place) -> list[str]:
    """Fill the disk, and send until the daemon cannot queue any more; the ids of what it queued."""
    place.disk.fill()
    queued: list[str] = []
    with place.daemon.client() as client:
        for text in (LARGE, "x"):
            with pytest.raises(AnsweredError, match="disk"):  # noqa: PT012
                for _ in range(MANY):
                    queued.append(client.call("send", {"to": "alice.box", "text": text})["id"])
    error = place.bob.fails("send", "alice.box", "x")
    assert (error["code"], error["exit_code"], error["took_effect"]) == ("disk", 3, "nothing")
    return queued


def arrived(place: Place) -> list[str]:
    """Ids of everything in Alice's inbox."""
    return sorted(message["id"] for message in place.alice.inbox("--all"))


def test_a_command_says_that_the_disk_is_full_and_works_when_it_is_not(place: Place) -> None:
    """Reading goes on; nothing was queued by what was refused; no restart is needed."""
    queued = fill(place)
    assert place.bob.ok("whoami")["identities"][0]["address"] == "bob.box"
    assert place.bob.fails("mesh", "create", "more", "--broker", "ws://127.0.0.1:9/ws")["exit_code"] in (3, 6)

    place.disk.free()

    queued.append(place.bob.ok("send", "alice.box", "again", "--wait", "delivered")["id"])
    wait_until(lambda: arrived(place) == sorted(queued), "everything queued has arrived, and nothing else")
    sent = place.alice.ok("send", "bob.box", "to a disk with room", "--wait", "delivered")
    assert [message["id"] for message in place.bob.inbox()] == [sent["id"]]


def test_a_daemon_that_is_killed_and_started_on_a_full_disk_loses_nothing(place: Place) -> None:
    """It starts, or refuses in words; what was queued before leaves when there is room."""
    queued = fill(place)
    config = (place.bob.config_dir / "config.json").read_bytes()
    place.daemon.kill()

    answer = place.bob.run("daemon", "start", "--json")

    assert "Traceback" not in answer.stdout + answer.stderr
    assert answer.exit_code in (0, 3)
    if answer.exit_code == 3:
        assert answer.json["error"]["code"] == "disk"
    assert (place.bob.config_dir / "config.json").read_bytes() == config
    place.disk.free()
    place.bob.ok("mesh", "list")
    wait_until(lambda: arrived(place) == sorted(queued), "everything queued has arrived")
    place.bob.run("daemon", "stop")
    start(place.daemon)


def test_a_daemon_stops_on_a_full_disk(place: Place) -> None:
    """Told to stop, it stops: what could not be written is not worth a crash."""
    queued = fill(place)

    code = place.daemon.stop()

    assert code == 0
    assert "Traceback" not in place.daemon.output.read_text()
    place.disk.free()
    start(place.daemon)
    wait_until(lambda: arrived(place) == sorted(queued), "everything queued has arrived")
