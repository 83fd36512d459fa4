"""Every command that a page shows is one: its words, options and values are those of the command line."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from claudemesh.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/hosts/*.md"), *ROOT.glob("docs/spec/*.md")]
)
BLOCK = re.compile(r"^```(?:sh|bash|console)?\n(.*?)^```", re.M | re.S)
INLINE = re.compile(r"`(claudemesh [^`\n]+)`")
TYPED = re.compile(r"^(?:\$ |.*\| )?(claudemesh .*)$", re.M)
NOT_TYPED = re.compile(r"[…\[\]{}<>]|^claudemesh [a-z]+_|\*")
"""A pattern rather than a command."""


def shown(page: Path) -> Iterator[str]:
    """What a page shows as typed, in a block of a shell or in a sentence."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for block in BLOCK.findall(text):
        yield from TYPED.findall(block)
    yield from INLINE.findall(BLOCK.sub("", text))


def words_of(line: str) -> list[str]:
    """The first command of a line, without its comment and what the shell does with it."""
    words = shlex.split(line, comments=True)
    ends = [index for index, word in enumerate(words) if word in ("&&", "||", "|", "&", ";", ">", ">>", "<")]
    return words[1 : min(ends, default=len(words))]


def check(words: list[str]) -> None:
    """Parse as the command line does, and run nothing. What a sentence leaves out is not missed."""
    command: click.Command = cli
    context: click.Context | None = None
    while True:
        try:
            context = command.make_context("claudemesh", list(words), parent=context)
        except (click.MissingParameter, click.exceptions.Exit, click.exceptions.NoArgsIsHelpError):
            return
        except click.BadParameter:
            if not any(word.isupper() for word in words):  # which stands for a value, as in a sentence
                raise
            return
        if not isinstance(command, click.Group) or not (rest := [*context._protected_args, *context.args]):
            return
        _, found, words = command.resolve_command(context, rest)
        assert found is not None, rest
        command = found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_shows_is_one(page: Path) -> None:
    """A page that shows what does not exist, or not so, costs every reader who types it."""
    wrong = {}
    for line in shown(page):
        if NOT_TYPED.search(line.partition("#")[0]):
            continue
        try:
            check(words_of(line))
        except (click.ClickException, ValueError) as error:
            wrong[line] = str(error) or type(error).__name__

    assert wrong == {}


def test_a_command_that_does_not_exist_is_found_out() -> None:
    """The instrument itself."""
    for line in ("claudemesh sned bob x", "claudemesh send bob x --urgent", "claudemesh mesh creates"):
        with pytest.raises(click.ClickException):
            check(words_of(line))
    check(words_of("claudemesh send bob x --wait delivered # a comment"))
    assert len(list(shown(ROOT / "README.md"))) > 20
