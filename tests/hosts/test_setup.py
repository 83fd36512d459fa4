"""`claudemesh install` and `uninstall` with the real Codex, Gemini CLI and opencode, as these see the result."""

import json
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts import lab
from tests.hosts.claude import Claude
from tests.hosts.conftest import Mesh
from tests.hosts.others import Headless
from tests.hosts.simulated_anthropic import simulated_anthropic
from tests.hosts.simulated_gemini import simulated_gemini
from tests.hosts.simulated_models import Say, SimulatedModels
from tests.hosts.simulated_openai import simulated_openai
from tests.processes import machine, wait_until

HOSTS = ["codex", "gemini", "opencode"]
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Headless]:
    """Each host on a machine of its own, with settings of its user's; the plain name `claudemesh` runs us."""
    with machine(tmp_path, "bob") as one:
        yield Headless(one, request.param, NOWHERE)


def settings_of(host: Headless) -> dict[str, bytes]:
    """Every file that decides how these hosts are set up, for the user and for the project."""
    directories = (".codex", ".gemini", ".config/opencode")
    places = [root / name for root in (host.machine.home, host.project) for name in directories]
    files = [path for place in places for path in place.rglob("*") if path.suffix in (".toml", ".json", ".jsonc")]
    files += host.project.glob("*.json*")
    return {str(path): path.read_bytes() for path in files if path.name in _SETTINGS}


_SETTINGS = ("config.toml", "hooks.json", "settings.json", "opencode.json", "opencode.jsonc")


def listed(host: Headless) -> str:
    """What the host's own command says of its servers."""
    done = host.command("mcp", "list")
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)


@pytest.mark.parametrize("scope", ["user", "project"])
def test_uninstall_gives_back_every_byte(host: Headless, scope: str) -> None:
    """A second install has nothing to do and changes nothing; what we made is gone again."""
    host.command("--version")  # Gemini CLI rewrites settings of an older form whenever it starts
    before = settings_of(host)

    installed = host.mesh("install", host.host, "--scope", scope)
    between = settings_of(host)
    again = host.mesh("install", host.host, "--scope", scope)
    after_again = settings_of(host)
    removed = host.mesh("uninstall", host.host, "--scope", scope)

    assert [bool(one["hosts"][0]["changes"]) for one in (installed, again, removed)] == [True, False, True]
    assert installed["hosts"][0]["measured"] is True
    assert after_again == between != before
    assert settings_of(host) == before


@pytest.mark.parametrize("scope", ["user", "project"])
def test_a_host_lists_our_server_until_it_is_uninstalled(host: Headless, scope: str) -> None:
    """By its own command, which may write to its settings: then our entries alone are removed."""
    before = listed(host)

    host.mesh("install", host.host, "--scope", scope)
    between = listed(host)
    host.mesh("uninstall", host.host, "--scope", scope)

    assert ("claudemesh" in before, "claudemesh" in between) == (False, True)
    assert listed(host) == before
    assert not [path for path, content in settings_of(host).items() if b"claudemesh" in content]


@pytest.mark.parametrize("scope", ["user", "project"])
def test_a_host_connects_to_the_server_that_was_installed(host: Headless, scope: str) -> None:
    """By its own check of health; of Codex, which checks nothing, by what it would start."""
    host.mesh("install", host.host, "--scope", scope)

    said = listed(host).lower()

    connected = {"codex": "enabled", "gemini": "- connected", "opencode": "connected"}[host.host]
    started = "claudemesh mcp --host" if scope == "project" else f"{sys.executable} -P -m claudemesh mcp --host".lower()
    assert connected in said
    assert f"{started} {host.host}" in " ".join(said.split())


def test_what_codex_writes_while_it_is_set_up_stays(tmp_path: Path) -> None:
    """An interactive session adds tables of its own; doctor still knows ours, and uninstall takes nothing else."""
    models = simulated_openai(codex=lambda _body, number: [Say(f"reply {number}")])
    with machine(tmp_path, "bob") as one:
        host = Headless(one, "codex", models.url)
        config = one.home / ".codex" / "config.toml"
        before = tomllib.loads(config.read_text())
        host.mesh("install", "codex")
        terminal = host.open("--dangerously-bypass-hook-trust")
        try:
            wait_until(lambda: "simulated" in terminal.screen, "Codex is ready")
            terminal.type("hello")
            terminal.wait_for("reply 0")
        finally:
            terminal.close()
        said = host.doctor()
        between = tomllib.loads(config.read_text())

        host.mesh("uninstall", "codex")

        after = tomllib.loads(config.read_text())
        assert "Codex CLI 0.169.0 is set up" in said
        assert between.pop("mcp_servers").keys() == {"claudemesh"}
        assert after == between != before
    models.close()


def test_what_is_added_by_hand_to_commented_settings_of_gemini_works(mesh: Mesh) -> None:
    """Gemini CLI reads comments: its file is left as it is, and what is printed for its user is all that it needs."""
    models = simulated_gemini(lambda _body, number: [Say(f"reply {number}")])
    try:
        host = Headless(mesh.bob, "gemini", models.url)
        settings = mesh.bob.home / ".gemini" / "settings.json"
        host.command("--version")  # it rewrites settings of an older form whenever it starts, and keeps their comments
        own = json.loads(settings.read_text())
        commented = "// mine\n" + settings.read_text()
        settings.write_text(commented)
        refused = host.run(mesh.bob.command("install", "gemini", "--yes"))
        after_refusal = settings.read_text()
        by_hand = json.loads(refused.stderr[refused.stderr.index("\n{") :])
        settings.write_text("// mine\n" + json.dumps(own | by_hand, indent=2))
        message_id = mesh.send("the build is green")

        host.ask("hello")

        assert refused.returncode == 3
        assert after_refusal == commented
        assert models.requests[0].text.count("| the build is green") == 1
        mesh.wait_for_stages(message_id, ["offered", "read"])
        assert "Gemini CLI 0.61.0 is set up" in host.doctor()
    finally:
        models.close()
    assert not models.errors


def test_a_version_of_claude_code_that_was_not_measured_is_set_up_and_said_to_be_so(mesh: Mesh, tmp_path: Path) -> None:
    """The real program under a version of the future: it is set up all the same, and `install` says how to try it."""
    models = simulated_anthropic(bob=lambda _body, number: [Say(f"reply {number}")])
    programs = tmp_path / "programs"
    programs.mkdir()
    renamed = programs / "claude"
    real = lab.program("claude-code")
    renamed.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec echo "99.0.0 (Claude Code)"\nexec {real} "$@"\n')
    renamed.chmod(0o755)
    try:
        bob = Claude.on(mesh.bob, models, "bob")
        path = f"{programs}{os.pathsep}{bob.environment['PATH']}"
        installed = mesh.bob.run("install", "claude-code", "--yes", **bob.environment | {"PATH": path})
        mesh.send("the build is green")

        bob.ask("hello")

        assert installed.exit_code == 0, installed.stderr
        assert "Claude Code 99.0.0" in installed.stdout
        assert "this version was not measured: `claudemesh doctor --wake SESSION`" in installed.stdout
        assert models.requests[0].text.count("| the build is green") == 1
    finally:
        models.close()


def test_a_message_reaches_the_older_measured_version_of_claude_code(mesh: Mesh, older: Claude) -> None:
    """Set up by its own command, unread messages in the first request, one that comes later while it is idle."""
    installed = older.mesh("install", "claude-code", "--allow-tools", "--json")
    first = mesh.send("the build is green")
    headless = older.ask("hello")
    mesh.wait_for_stages(first, ["offered", "read"])
    older.open().type("hello again")
    mesh.wait_for_session("bob.desktop/older")
    second = mesh.send("and now it is red", to="bob.desktop/older")

    mesh.wait_for_stages(second, ["offered", "read"])

    shown = [request.text for request in older.models.of("older")]
    assert (installed.json["hosts"][0]["version"], installed.json["hosts"][0]["measured"]) == ("2.1.197", True)
    assert headless.exit_code == 0
    assert shown[0].count("| the build is green") == 1
    assert shown[-1].count("| and now it is red") == 1


@pytest.fixture
def older(mesh: Mesh) -> Iterator[Claude]:
    """Bob's Claude Code in the older of the versions that were measured."""
    models: SimulatedModels = simulated_anthropic(older=lambda _body, number: [Say(f"reply {number}")])
    claude = Claude.on(mesh.bob, models, "older")
    claude.program = "claude-code-older"
    yield claude
    claude.close()
    models.close()
    assert not models.errors
