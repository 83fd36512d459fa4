"""`claudemesh up`: sessions of one machine talk with no network."""

from collections.abc import Iterator

import click

from claudemesh.cli.verb import Verb, verb
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import visible


@click.command(epilog="Example: claudemesh up && claudemesh invite --mesh local")
@click.option("--name", default="", help="What you are called in the mesh; your login name by default.")
@click.option("--device", default="", help="What this machine is called; its host name by default.")
@verb
def up(verb: Verb, name: str, device: str) -> None:
    """Start talking on this machine: daemon, embedded broker and the mesh `local`.

    The broker listens on a Unix socket that only you can open; nothing leaves the machine. It is up
    again whenever the daemon runs, until `claudemesh mesh move local wss://…` takes the mesh elsewhere.
    """
    verb.answer(verb.ask("up", name=name, device=device), _lines)


def _lines(answer: Object) -> Iterator[str]:
    mesh = answer["mesh"]
    made = "created" if answer["created"] else "there"
    yield f"up: the mesh {visible(mesh['alias'])} is {made}; you are {visible(mesh['address'])}"
    yield "  a session of this terminal:                claudemesh watch --session LABEL"
    yield f"  a link for another configuration directory: claudemesh invite --mesh {visible(mesh['alias'])}"
