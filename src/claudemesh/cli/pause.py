"""`claudemesh pause`, `resume`, `dnd`: when agents are quiet on this machine."""

from collections.abc import Iterator

import click

from claudemesh.cli.output import ago, bad, good, now_ms
from claudemesh.cli.verb import Verb, mesh_option, verb
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import visible


@click.command(epilog="Example: claudemesh pause --mesh acme")
@mesh_option
@verb
def pause(verb: Verb, mesh: str) -> None:
    """Stop the agents of a mesh on this machine, at once.

    None of them is shown or sends anything until `claudemesh resume`. You still can: `inbox`, and
    `send` typed at a terminal. Senders are told, signed, that their messages are held.
    """
    verb.answer(verb.ask("pause", mesh=mesh), _state)


@click.command(epilog="Example: claudemesh resume --mesh acme")
@mesh_option
@verb
def resume(verb: Verb, mesh: str) -> None:
    """Let the agents of a mesh go on: they get what came meanwhile."""
    verb.answer(verb.ask("resume", mesh=mesh), _state)


@click.command(epilog="Example: claudemesh dnd on")
@click.argument("state", type=click.Choice(["on", "off"]))
@mesh_option
@verb
def dnd(verb: Verb, state: str, mesh: str) -> None:
    """Have agents here get only what may interrupt them, or with `off` everything.

    That is messages of priority `now` from your own devices and from peers to whom you granted it
    (`claudemesh grant PEER now`). The others wait in the inbox.
    """
    verb.answer(verb.ask("dnd", mesh=mesh, on=state == "on"), _state)


def _state(answer: Object) -> Iterator[str]:
    mesh, now = visible(answer["mesh"]), now_ms()
    if answer["paused_since"]:
        yield bad(f"{mesh} is paused since {ago(answer['paused_since'], now)}: no agent here gets or sends anything")
    elif answer["dnd_since"]:
        yield bad(f"{mesh}: since {ago(answer['dnd_since'], now)} agents get only what may interrupt them")
    else:
        yield good(f"{mesh}: agents get and send what they may")
    if answer["held"]:
        yield f"{answer['held']} held for you; see claudemesh hold list"
