"""Two users with real daemons behind a real broker, in a namespace that has nothing but loopback."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.hosts import lab
from tests.hosts.claude import Claude
from tests.hosts.compatibility import RESULTS
from tests.hosts.simulated_anthropic import simulated_anthropic
from tests.hosts.simulated_models import Say, SimulatedModels
from tests.processes import BrokerProcess, Machine, introduce, machine, start_broker, wait_until


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to run where a program under test could reach anybody."""
    others = [name for _, name in socket.if_nameindex() if name != "lo"]
    if others or lab.missing():
        pytest.exit("these tests run with `make test-hosts`: in a namespace of their own, with pinned programs", 3)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Leave each test's latest outcome for the table in the docs."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    outcomes = known | {
        report.nodeid: outcome
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if report.when == "call"
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(outcomes, indent=1))


class Mesh(NamedTuple):
    """Alice and Bob."""

    broker: BrokerProcess
    alice: Machine
    bob: Machine

    def send(self, text: str, *options: str, to: str = "bob.desktop") -> str:
        """Alice writes; returns the id once it is at the other machine."""
        answer = self.alice.ok("send", to, text, "--wait", "delivered", *options)
        assert answer["stage"] in ("delivered", "offered", "read")  # a session that wakes may be as fast as we are
        return str(answer["id"])

    def stages(self, message_id: str) -> list[str]:
        """What Alice knows of a message beyond its delivery."""
        steps = self.alice.ok("message", message_id)["steps"]
        return [step["stage"] for step in steps if step["stage"] not in ("queued", "accepted", "delivered")]

    def wait_for_session(self, address: str) -> None:
        """Wait until Alice sees a session."""

        def sessions() -> list[str]:
            peers = self.alice.ok("peers")["peers"]
            return [f"{peer['address']}/{one['label']}" for peer in peers for one in peer["sessions"]]

        wait_until(lambda: address in sessions(), f"the session {address} is in presence")

    def wait_for_stages(self, message_id: str, stages: list[str]) -> None:
        wait_until(lambda: self.stages(message_id) == stages, f"{stages}, it is {self.stages(message_id)}")


def two_users(broker: BrokerProcess, alice: Machine, bob: Machine) -> Mesh:
    """Put two machines into one mesh."""
    introduce(broker, alice, bob)
    return Mesh(broker, alice, bob)


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    """Two machines in one mesh."""
    with ExitStack() as stack:
        broker = stack.enter_context(start_broker(tmp_path))
        alice = stack.enter_context(machine(tmp_path, "alice"))
        bob = stack.enter_context(machine(tmp_path, "bob"))
        yield two_users(broker, alice, bob)


@pytest.fixture
def models() -> Iterator[SimulatedModels]:
    """Models that answer every request with its number, unless a test gives them a script."""
    found = simulated_anthropic(**{"*": lambda _body, number: [Say(f"reply {number}")]})
    yield found
    found.close()
    assert not found.errors


@pytest.fixture
def bob(mesh: Mesh, models: SimulatedModels) -> Iterator[Claude]:
    """Bob's Claude Code, with claudemesh set up."""
    claude = Claude.on(mesh.bob, models, "bob")
    claude.set_up()
    yield claude
    claude.close()
