"""`claudemesh join`: become a peer of a mesh by an invite link."""

import sys
from collections.abc import Iterator

import click

from claudemesh.cli.verb import Verb, verb
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import visible
from claudemesh.errors import UsageError

_MAX_LINK_CHARACTERS = 8_192


@click.command(epilog="Example: pbpaste | claudemesh join - --device laptop")
@click.argument("link", nargs=-1, required=True)
@click.option(
    "--name", default="", help="What you are called in the mesh; by default what the link says, or your login name."
)
@click.option("--device", default="", help="What this machine is called; its host name by default.")
@click.option(
    "--as", "alias", default="", metavar="ALIAS", help="What you call the mesh; the name in the link by default."
)
@verb
def join(verb: Verb, link: tuple[str, ...], name: str, device: str, alias: str) -> None:
    """Join a mesh by an invite link.

    Nobody else need be online. With `-` the link is read from standard input, so that it stands in
    no shell history and no list of processes. A link that a chat program wrapped or quoted still works.
    """
    text = _from_input() if link == ("-",) else " ".join(link)
    verb.answer(verb.ask("join", link=text, name=name, device=device, alias=alias), _lines)


def _from_input() -> str:
    if sys.stdin.isatty():
        click.echo("Paste the link, then press Enter and Ctrl-D:", err=True)
    text = sys.stdin.buffer.read(_MAX_LINK_CHARACTERS + 1).decode("utf-8", "replace")
    if len(text) > _MAX_LINK_CHARACTERS:
        raise UsageError("usage", "what stands on standard input is too long for a link")
    return text


def _lines(answer: Object) -> Iterator[str]:
    mesh = answer["mesh"]
    yield f"joined {visible(mesh['alias'])} as {visible(mesh['address'])}; it has {mesh['members']} peers"
    yield "next: claudemesh peers"
