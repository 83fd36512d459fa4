"""Who a command is taken to be typed by."""

import io
import sys

import pytest

from claudemesh.cli.authorship import AGENT_SHELLS, author


class Terminal(io.StringIO):
    """A stream that a person sits at."""

    def isatty(self) -> bool:
        return True


def sits_at(patch: pytest.MonkeyPatch, stream: io.StringIO) -> None:
    """Give this process such an input and output."""
    patch.setattr(sys, "stdin", stream)
    patch.setattr(sys, "stdout", stream)


def test_whoever_types_at_a_terminal_is_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a host of agents says otherwise."""
    sits_at(monkeypatch, Terminal())

    assert author({"TERM": "xterm"}) == "person"


@pytest.mark.parametrize("name", AGENT_SHELLS)
def test_an_agents_shell_is_known_by_what_its_host_sets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the host gives it a terminal."""
    sits_at(monkeypatch, Terminal())

    assert author({name: "1"}) == "agent"


def test_of_a_script_nobody_knows_who_wrote_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job is neither taken for a person nor for an agent."""
    sits_at(monkeypatch, io.StringIO())

    assert author({}) == ""
