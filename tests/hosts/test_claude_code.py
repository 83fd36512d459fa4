"""Claude Code, the real program: when a message reaches its model's requests, how often, and what its sender learns."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hosts.claude import Claude
from tests.hosts.conftest import Mesh
from tests.hosts.simulated_anthropic import simulated_anthropic
from tests.hosts.simulated_models import Say, SimulatedModels
from tests.processes import wait_until


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


def test_a_plain_turn_works(mesh: Mesh, models: SimulatedModels) -> None:
    """The ground that the other tests stand on: the program, the simulated model, the namespace."""
    claude = Claude.on(mesh.bob, models, "plain")

    done = claude.ask("hello")

    assert (done.exit_code, done.stdout) == (0, "reply 0")


def test_an_idle_session_is_woken(mesh: Mesh, models: SimulatedModels, bob: Claude, record_property: Any) -> None:
    """A message to a session whose user is away reaches its model, without any experimental flag."""
    bob.open()
    wait_until(lambda: bob.mesh("statusline").exit_code == 0, "the daemon runs")
    time.sleep(2)

    sent_at = time.time()
    message_id = mesh.send("is the build green?", to="bob.desktop/bob")
    wait_until(lambda: len(models.of("bob")) == 1, "a request")

    (request,) = models.of("bob")
    assert "| is the build green?" in request.text
    mesh.wait_for_stages(message_id, ["offered", "read"])
    record_property("summary", f"wake_idle_ms {(request.at - sent_at) * 1000:.0f}")
