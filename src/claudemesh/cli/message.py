"""`claudemesh message`: the timeline of one message, and who signed each stage."""

from collections.abc import Iterator

import click

from claudemesh.cli.output import clock, fingerprint, table
from claudemesh.cli.verb import Verb, mesh_option, verb
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import visible

_WITNESSES = {"sender": "this machine", "broker": "the broker", "peer": "the recipient"}


@click.command(epilog="Example: claudemesh message 3f9a02c7")
@click.argument("message_id", metavar="ID")
@mesh_option
@verb
def message(verb: Verb, message_id: str, mesh: str) -> None:
    """Show the timeline of one message: where it is, and who says so.

    ID is a message's id or its first 8 digits or more. Every stage stands there with the key whose
    signature was verified; a stage that nobody has signed has not been reached.
    """
    verb.answer(verb.ask("message", mesh=mesh, id=message_id), _lines)


def _lines(answer: Object) -> Iterator[str]:
    way = "to" if answer["direction"] == "sent" else "from"
    yield f"message {answer['id']}  {way} {visible(answer['address'])}  in {visible(answer['mesh'])}"
    yield from table(("STAGE", "AT", "TO", "SIGNED BY", "KEY", "HOW OR WHY"), [_row(step) for step in answer["steps"]])


def _row(step: Object) -> tuple[str, ...]:
    witness = str(step["signer_address"] or _WITNESSES.get(step["witness"], ""))
    key = fingerprint(step["signer"]) if step["signer"] else "-"
    return step["stage"], clock(step["at"]), step["to"], witness, key, step["code"]
