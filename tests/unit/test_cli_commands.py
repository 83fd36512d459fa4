"""The commands as a whole: help, examples, `--json`, the reference, and what starting one imports."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from claudemesh.cli.main import VERBS, cli
from tests.reference import CLI, cli_reference, commands, help_text, with_generated

WITHOUT_JSON = {"claudemesh daemon run", "claudemesh broker", "claudemesh mcp"}
"""Processes that last, not questions with an answer."""
SLOW_TO_IMPORT = ("aiohttp", "asyncio", "claudemesh.crypto", "claudemesh.peer", "msgspec", "nacl", "rich", "sqlite3")


ALL = dict(commands(cli, "claudemesh"))
LEAVES = {
    path: command
    for path, command in ALL.items()
    if not isinstance(command, click.Group) or command.invoke_without_command
}


@pytest.mark.parametrize("name", VERBS)
def test_the_list_of_verbs_says_what_the_verb_says(name: str) -> None:
    """The list is written apart, so that it needs no import; it must not drift."""
    assert ALL[f"claudemesh {name}"].get_short_help_str(limit=200) == VERBS[name].summary


@pytest.mark.parametrize("path", [path for path in ALL if path != "claudemesh"])
def test_every_help_has_an_example_that_is_the_command(path: str) -> None:
    """A person learns more from one line that works than from a table of options."""
    text = help_text(path, ALL[path])

    examples = re.split("Examples?:", text)[1]
    assert path in examples


@pytest.mark.parametrize("path", sorted(set(LEAVES) - WITHOUT_JSON - {"claudemesh"}))
def test_every_verb_speaks_json(path: str) -> None:
    """A program never has to read prose."""
    options = {option for parameter in LEAVES[path].params for option in parameter.opts}

    assert "--json" in options


def test_every_option_and_argument_is_explained() -> None:
    """No option stands in the help without a word."""
    silent = [
        f"{path} {parameter.name}"
        for path, command in ALL.items()
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]

    assert silent == []


def test_the_reference_is_the_help_of_every_command() -> None:
    """docs/cli.md holds each command's help, word for word, and no other command."""
    document = CLI.read_text()

    assert document == with_generated(document, cli_reference()), "run: python -m tests.reference"


@pytest.mark.parametrize("name", [name for name in VERBS if name != "broker"])
def test_loading_a_verb_imports_nothing_slow(name: str) -> None:
    """A command is a process of its own, and starts in the time that a person does not notice."""
    program = (
        "import sys\n"
        "from claudemesh.cli.main import cli\n"
        f"cli.get_command(None, {name!r})\n"
        f"print([one for one in {SLOW_TO_IMPORT!r} if one in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "no command 'nothing'"),
        (["sned"], "Did you mean 'send'?"),
        (["send"], "Missing argument"),
        (["send", "bob", "x", "--wait", "seen"], "not one of"),
        (["send", "bob", "x", "--timeout", "7"], "not a length of time"),
        (["invite", "--uses", "0"], "--uses"),
        (["mesh", "create", "team"], "--broker"),
        (["inbox", "--no-such"], "--no-such"),
    ],
)
def test_wrong_usage_says_what_is_wrong_and_takes_no_effect(arguments: list[str], words: str, tmp_path: Path) -> None:
    """Exit code 2, one message, where the help is; nothing is started or written."""
    config = tmp_path / "config"
    environment = {"CLAUDEMESH_CONFIG_DIR": str(config), "HOME": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-m", "claudemesh", *arguments], env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert words in done.stderr
    assert "--help" in done.stderr
    assert done.stdout == ""
    assert not config.exists()
