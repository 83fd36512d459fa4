"""config.json holds what nothing can bring back: it is whole after any kill, and a damaged one is never replaced."""

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from claudemesh.daemon.ipc import AnsweredError
from claudemesh.errors import LocalError
from claudemesh.peer.config import Config, read_config
from tests.faults.victims import DaemonVictim, start
from tests.processes import BrokerProcess, Machine, machine, start_broker

KILLS = 15
GENEROUS = (
    *("--limit", "meshes_per_hour_per_address=100000"),
    *("--limit", "uploads_per_hour_per_address=100000"),
    *("--limit", "failed_handshakes_per_minute=100000"),
)


class Place(NamedTuple):
    """One user, and a broker that lets it found many meshes."""

    broker: BrokerProcess
    alice: Machine
    daemon: DaemonVictim

    @property
    def file(self) -> Path:
        return self.alice.config_dir / "config.json"

    def read(self) -> Config:
        """The file as it stands, believed only when it is whole and each secret belongs to its key."""
        return read_config(self.file.read_bytes())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        broker = stack.enter_context(start_broker(tmp_path, *GENEROUS))
        alice = stack.enter_context(machine(tmp_path, "alice"))
        alice.config_dir.mkdir(mode=0o700)
        daemon = DaemonVictim(alice, "alice")
        start(daemon)
        stack.callback(daemon.kill)
        found_mesh(daemon, broker.url, "first")
        yield Place(broker, alice, daemon)


def found_mesh(daemon: DaemonVictim, url: str, alias: str) -> None:
    """Found a mesh, for which the configuration is written several times."""
    with daemon.client() as client:
        client.call("mesh.create", {"alias": alias, "broker_url": url, "name": "alice", "device": "box"})


def killed_while_it_writes(place: Place, alias: str, rng: random.Random) -> bool:
    """Found a mesh, and kill the daemon while it writes the file for it; whether it had answered before."""
    answers: list[str] = []

    def found() -> None:
        with suppress(LocalError):  # killed
            found_mesh(place.daemon, place.broker.url, alias)
            answers.append(alias)

    founder = threading.Thread(target=found)
    founder.start()
    writes, seen = rng.randint(1, 3), set[str]()
    while len(seen) < writes and founder.is_alive():
        seen |= {path.name for path in place.alice.config_dir.glob(".config-*")}
    time.sleep(rng.choice((0.0, 0.0, 0.000_5, 0.002)))
    place.daemon.kill()
    founder.join()
    return bool(answers)


def test_a_kill_while_it_is_written_leaves_a_whole_file(place: Place) -> None:
    """The old one or the new one, with every mesh that was answered for; one that was cut off is founded anew."""
    rng = random.Random(7)
    answered = {"first"}
    for number in range(KILLS):
        alias = f"mesh-{number}"
        if killed_while_it_writes(place, alias, rng):
            answered.add(alias)

        assert answered <= {mesh.alias for mesh in place.read().meshes}
        start(place.daemon)
        assert list(place.alice.config_dir.glob(".config-*")) == []
        try:
            found_mesh(place.daemon, place.broker.url, alias)
        except AnsweredError as error:
            assert error.error["message"] == f"there is a mesh {alias} already"  # noqa: PT017 - and only then
        answered.add(alias)
        with place.daemon.client() as client:
            assert {mesh["alias"] for mesh in client.call("mesh.list", {})["meshes"]} == answered


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused_with_a_remedy_that_works(place: Place, tmp_path: Path, share: float) -> None:
    """As a disk or an editor may leave it: nobody writes over it, and the printed remedy brings the keys back."""
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    place.alice.ok("backup", str(tmp_path / "backup"), "--passphrase-file", str(secret))
    whole = place.file.read_bytes()
    place.daemon.kill()
    damaged = whole[: int(len(whole) * share)]
    place.file.write_bytes(damaged)

    error = place.alice.fails("mesh", "list")

    assert (error["code"], error["exit_code"], error["took_effect"]) == ("config_damaged", 3, "nothing")
    assert "config.json, move it away" in error["hint"]
    assert place.file.read_bytes() == damaged
    place.file.rename(tmp_path / "damaged.json")
    place.alice.ok("restore", str(tmp_path / "backup"), "--passphrase-file", str(secret))
    assert read_config(place.file.read_bytes()) == read_config(whole)
    place.alice.kill_daemon()
    start(place.daemon)


def test_a_secret_of_another_key_is_not_half_believed(place: Place) -> None:
    """A file put together by hand is refused as a whole, before anything is signed with it."""
    place.daemon.kill()
    config = json.loads(place.file.read_bytes())
    config["meshes"][0]["peer"]["sign_sk"] = "11" * 32
    place.file.write_text(json.dumps(config))

    error = place.alice.fails("whoami")

    assert error["code"] == "config_damaged"
    assert "11" * 32 not in json.dumps(error)
    place.file.write_text(json.dumps(config | {"meshes": []}))
    start(place.daemon)
