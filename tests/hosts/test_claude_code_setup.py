"""`claudemesh install` and `uninstall` with the real Claude Code: what they change, and that all of it comes back."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.claude import Claude
from tests.hosts.simulated_anthropic import simulated_anthropic
from tests.hosts.simulated_models import Say, SimulatedModels
from tests.processes import machine, wait_until

PLUGIN = Path(__file__).resolve().parents[2] / "plugin"
SETTINGS = '{\n\t"theme": "dark",\n\t"hooks": {"Stop": [{"hooks": [{"type": "command", "command": "true"}]}]}}\n'


@pytest.fixture
def models() -> Iterator[SimulatedModels]:
    """A model that is seldom asked."""
    found = simulated_anthropic(**{"*": lambda _body, number: [Say(f"reply {number}")]})
    yield found
    found.close()


@pytest.fixture
def bob(tmp_path: Path, models: SimulatedModels) -> Iterator[Claude]:
    """Bob's Claude Code, with hooks of his own and nothing of ours."""
    with machine(tmp_path, "bob") as one:
        claude = Claude.on(one, models, "bob")
        claude.settings.write_text(SETTINGS)
        yield claude


def setup_files(claude: Claude) -> dict[str, bytes]:
    """Every file that decides how Claude Code is set up, with its bytes."""
    paths = [claude.settings, claude.state, claude.project / ".mcp.json", claude.project / ".claude" / "settings.json"]
    return {str(path): path.read_bytes() for path in paths if path.exists()}


@pytest.mark.parametrize("scope", ["user", "project"])
def test_uninstall_gives_back_every_byte(bob: Claude, scope: str) -> None:
    """Also files and directories that were not there are gone again."""
    before = setup_files(bob)

    installed = bob.mesh("install", "claude-code", "--scope", scope, "--json")
    between = setup_files(bob)
    removed = bob.mesh("uninstall", "claude-code", "--scope", scope, "--json")

    assert (installed.exit_code, removed.exit_code) == (0, 0), installed.stdout + removed.stdout
    assert between != before
    assert setup_files(bob) == before
    assert not (bob.project / ".claude").exists()


def test_a_second_install_has_nothing_to_do(bob: Claude) -> None:
    """Same files, to the byte."""
    bob.set_up()
    before = setup_files(bob)

    again = bob.mesh("install", "claude-code", "--allow-tools", "--json")

    assert [one["changes"] for one in again.json["hosts"]] == [[]]
    assert setup_files(bob) == before


def test_what_others_wrote_since_stays(bob: Claude) -> None:
    """Of a file that changed after the install, our entries alone are removed."""
    bob.set_up()
    settings = json.loads(bob.settings.read_text())
    bob.settings.write_text(json.dumps(settings | {"model": "opus"}))

    bob.mesh("uninstall", "claude-code")

    assert json.loads(bob.settings.read_text()) == json.loads(SETTINGS) | {"model": "opus"}
    assert "claudemesh" not in bob.settings.read_text() + bob.state.read_text()


@pytest.mark.parametrize("content", ["{\n  // mine\n}\n", '{"theme": "dark",}', "[]", '{"a": 1, "a": 2}', "\ufffe"])
def test_a_file_that_is_not_plain_json_is_left_alone(bob: Claude, content: str) -> None:
    """Nothing at all changes, and the answer says what to add by hand."""
    bob.settings.write_text(content)
    before = setup_files(bob)

    refused = bob.mesh("install", "claude-code", "--json")

    assert refused.json["error"]["code"] == "host_settings"
    assert '"mcp_tool"' in refused.json["error"]["hint"]
    assert setup_files(bob) == before


def test_a_host_that_is_not_there_is_named(tmp_path: Path) -> None:
    """And nothing is written for it."""
    with machine(tmp_path, "carol") as carol:
        missing = carol.run("install", "claude-code", "--json", PATH="/nonexistent")

        assert missing.exit_code == 2
        assert "Claude Code is not installed here" in missing.json["error"]["message"]
        assert not (carol.home / ".claude").exists()


def test_claude_code_connects_to_the_server_that_was_installed(bob: Claude) -> None:
    """Its own check of health says so."""
    bob.set_up()

    listed = bob.claude("mcp", "list")

    assert "claudemesh" in listed.stdout
    assert "Connected" in listed.stdout


def test_an_agent_can_be_started_without_any_setup(bob: Claude, models: SimulatedModels) -> None:
    """`claudemesh run` gives it server and hooks on its command line, and a name."""
    started = bob.mesh("run", "--label", "night-shift", "--", "claude", "-p", "hello")

    assert (started.exit_code, started.stdout.strip()) == (0, "reply 0"), started.stderr
    (request,) = models.of("bob")
    assert "mcp__claudemesh__mesh_send" in request.text


def test_the_plugin_brings_server_hooks_skill_and_commands(bob: Claude, models: SimulatedModels) -> None:
    """Installed from a local path, offline, by Claude Code's own commands; taken out again by them."""
    bob.searches_our_scripts = True
    valid = [
        bob.claude("plugin", "validate", "--strict", str(place)) for place in (PLUGIN, PLUGIN / "plugins" / "mesh")
    ]
    added = bob.claude("plugin", "marketplace", "add", str(PLUGIN))
    installed = bob.claude("plugin", "install", "mesh@claudemesh")
    bob.machine.ok("up", "--name", "bob", "--device", "desktop")
    bob.machine.ok("send", "bob.desktop", "the build is green")

    answered = bob.ask("hello")
    command = bob.ask("/mesh:inbox")

    assert [one.exit_code for one in (*valid, added, installed, answered, command)] == [0] * 6, [
        valid,
        added,
        installed,
    ]
    first, second = models.of("bob")[:2]
    assert "mcp__plugin_mesh_claudemesh__mesh_send" in first.text
    assert "mesh:claudemesh" in first.text
    assert first.text.count("| the build is green") == 1
    assert "Call `mesh_inbox` and list what came" in second.text
    assert bob.claude("plugin", "uninstall", "mesh@claudemesh").exit_code == 0


def test_the_status_line_is_short_and_current(bob: Claude) -> None:
    """Mesh, peers online, unread messages."""
    off = bob.mesh("statusline").stdout
    bob.machine.ok("up", "--name", "bob", "--device", "desktop")
    bob.machine.ok("send", "bob.desktop", "the build is green")

    assert off == "◇ off"
    wait_until(lambda: bob.mesh("statusline").stdout == "◇ local · 1/1 online · 1 unread", "the line is current")
