"""`claudemesh backup` and `restore`: the keys of a configuration, encrypted under a passphrase."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from claudemesh.cli.verb import Verb, verb
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import visible
from claudemesh.errors import UsageError

_passphrase_option = click.option(
    "--passphrase-file",
    metavar="FILE",
    help="Read the passphrase from the first line of FILE, or of - (standard input).",
)


@click.command(epilog="Example: claudemesh backup ~/claudemesh.backup")
@click.argument("file", type=click.Path(path_type=Path))
@_passphrase_option
@verb
def backup(verb: Verb, file: Path, passphrase_file: str | None) -> None:
    """Write an encrypted copy of your keys.

    FILE must be new. It holds the keys of every mesh, not the messages. Whoever has the file and the passphrase is you.
    """
    passphrase = _passphrase(passphrase_file, confirm=True)
    answer = verb.ask("backup", path=str(file.expanduser().absolute()), passphrase=passphrase)
    verb.answer(answer, _backed_up)


@click.command(epilog="Example: claudemesh restore ~/claudemesh.backup")
@click.argument("file", type=click.Path(path_type=Path))
@_passphrase_option
@click.option("--force", is_flag=True, help="Replace the keys that are here now.")
@verb
def restore(verb: Verb, file: Path, passphrase_file: str | None, force: bool) -> None:
    """Bring back the keys of a backup.

    Do not run the same keys on two machines: on a new machine `claudemesh device link` is better.
    """
    passphrase = _passphrase(passphrase_file, confirm=False)
    answer = verb.ask("restore", path=str(file.expanduser().absolute()), passphrase=passphrase, force=force)
    verb.answer(answer, _restored)


def _passphrase(file: str | None, *, confirm: bool) -> str:
    if file is None:
        if not sys.stdin.isatty():
            raise UsageError("usage", "there is no terminal to ask for the passphrase: use --passphrase-file")
        entered: str = click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
        return entered
    raw = sys.stdin.buffer.readline() if file == "-" else Path(file).expanduser().read_bytes().split(b"\n")[0]
    passphrase = raw.decode("utf-8", "replace").rstrip("\r\n")
    if not passphrase:
        raise UsageError("usage", "the passphrase is empty")
    return passphrase


def _backed_up(answer: Object) -> Iterator[str]:
    yield f"the keys of {len(answer['meshes'])} meshes are in {visible(answer['path'])}"


def _restored(answer: Object) -> Iterator[str]:
    replaced = ", in place of those that were here" if answer["replaced"] else ""
    yield f"restored the keys of: {', '.join(map(visible, answer['meshes'])) or 'no mesh'}{replaced}"
