"""`claudemesh install` and `uninstall` for every host at once, where the settings of one are not ours to rewrite."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Machine, machine

HOSTS = ("codex", "gemini", "opencode")
COMMENTED = '{ // mine\n  "theme": "Dark"\n}\n'


@pytest.fixture
def carol(tmp_path: Path) -> Iterator[Machine]:
    """A machine on whose PATH are programs that say their version; of Gemini CLI the settings have a comment."""
    with machine(tmp_path, "carol") as one:
        programs = one.home / "programs"
        programs.mkdir()
        for name in HOSTS:
            (programs / name).write_text("#!/bin/sh\necho 1.0.0\n")
            (programs / name).chmod(0o755)
        settings_of_gemini(one).parent.mkdir()
        settings_of_gemini(one).write_text(COMMENTED)
        one.extra["PATH"] = str(programs)
        yield one


def settings_of_gemini(one: Machine) -> Path:
    return one.home / ".gemini" / "settings.json"


def changed(answer: dict[str, object]) -> dict[str, bool]:
    hosts = answer["hosts"]
    assert isinstance(hosts, list)
    return {one["host"]: bool(one["changes"]) for one in hosts}


def test_settings_that_are_left_alone_keep_no_other_host_from_being_set_up(carol: Machine) -> None:
    """What to add by hand is told, and the exit code says that not everything was done."""
    done = carol.run("install", "--yes", "--json")

    assert done.exit_code == 3
    assert (done.json["done"], changed(done.json)) == (False, {"codex": True, "gemini": False, "opencode": True})
    (problem,) = next(one for one in done.json["hosts"] if one["host"] == "gemini")["problems"]
    assert '"mcpServers"' in problem
    assert settings_of_gemini(carol).read_text() == COMMENTED
    assert (carol.home / ".codex" / "hooks.json").exists()


def test_what_is_set_up_is_taken_back_whatever_stands_in_another_hosts_settings(carol: Machine) -> None:
    """Settings in which nothing of ours ever was are no reason to fail."""
    carol.run("install", "--yes", "--json")

    removed = carol.run("uninstall", "--json")

    assert removed.exit_code == 0
    assert changed(removed.json) == {"claude-code": False, "codex": True, "gemini": False, "opencode": True}
    assert not (carol.home / ".codex").exists()
    assert settings_of_gemini(carol).read_text() == COMMENTED


def test_what_was_added_by_hand_is_named_and_taken_back_by_hand(carol: Machine) -> None:
    """The other hosts' is taken back all the same."""
    carol.run("install", "--yes", "--json")
    settings_of_gemini(carol).write_text('// mine\n{"mcpServers": {"claudemesh": {"command": "claudemesh"}}}\n')

    removed = carol.run("uninstall", "--json")

    assert removed.exit_code == 3
    assert changed(removed.json) == {"claude-code": False, "codex": True, "gemini": False, "opencode": True}
    (problem,) = next(one for one in removed.json["hosts"] if one["host"] == "gemini")["problems"]
    assert "settings.json has comments" in problem
