"""`claudemesh revoke`, `role`, `rekey`, `recover`: who belongs to a mesh, and who decides it."""

import sys
from collections.abc import Iterator

import click

from claudemesh.cli.completing import complete_mesh, complete_peer
from claudemesh.cli.output import fingerprint
from claudemesh.cli.verb import Verb, mesh_option, verb
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import visible
from claudemesh.errors import UsageError

_MAX_WORDS_CHARACTERS = 1_024


@click.command(epilog="Example: claudemesh revoke bob.laptop --reason stolen --close-invites")
@click.argument("peer", shell_complete=complete_peer)
@click.option(
    "--reason",
    type=click.Choice(["left", "lost", "stolen", "removed"]),
    default="removed",
    show_default=True,
    help="What the roster says.",
)
@click.option("--close-invites", is_flag=True, help="Also close the open invites that admitted them.")
@mesh_option
@verb
def revoke(verb: Verb, peer: str, reason: str, close_invites: bool, mesh: str) -> None:
    """Remove a peer, or a user with every device, from a mesh.

    Everybody refuses it from then on, whoever is offline now when it returns. The invites that it
    made die, and the channels that it was in get new secrets at once; what it has read stays read.
    Your own name stands for your other devices. Owners remove anybody, admins members, everybody
    their own devices.
    """
    answer = verb.ask("revoke", mesh=mesh, peer=peer, reason=reason, close_invites=close_invites)
    verb.answer(answer, _revoked)


@click.command(epilog="Example: claudemesh role bob.desktop admin")
@click.argument("peer", shell_complete=complete_peer)
@click.argument("role", type=click.Choice(["member", "admin", "owner"]))
@mesh_option
@verb
def role(verb: Verb, peer: str, role: str, mesh: str) -> None:
    """Make a peer a member, admin or owner.

    Admins invite and remove members; owners do everything, and only they give roles. The last owner stays one.
    """
    verb.answer(verb.ask("role", mesh=mesh, peer=peer, role=role), _role_given)


@click.command(epilog="Example: claudemesh rekey --mesh team")
@mesh_option
@verb
def rekey(verb: Verb, mesh: str) -> None:
    """Replace this machine's box key, because somebody may have copied it.

    Everybody encrypts to the new key from then on, no broker can bring the old one back, and the
    channels get new secrets. What was sent before may be read by whoever has the old key. If the
    whole machine is stolen, revoke it instead.
    """
    verb.answer(verb.ask("rekey", mesh=mesh), _rekeyed)


@click.command(epilog="Example: claudemesh recover team")
@click.argument("alias", default="", shell_complete=complete_mesh)
@click.option("--broker", "broker_url", default="", metavar="URL", help="Where the mesh is, on a new machine.")
@click.option("--mesh-id", default="", metavar="ID", help="Its id, 32 digits or more, on a new machine.")
@click.option("--name", default="", help="What you are called; the name in use by default.")
@click.option("--device", default="", help="What this machine is called; the name in use by default.")
@verb
def recover(verb: Verb, alias: str, broker_url: str, mesh_id: str, name: str, device: str) -> None:
    """Take a mesh back by the recovery words that were printed when it was created.

    This machine becomes the only owner; every owner and admin before, thieves of their devices
    included, and all open invites are out. The words are asked for, or read from standard input; they
    are never an argument.
    """
    answer = verb.ask(
        "recover", words=_words(), mesh=alias, broker_url=broker_url, mesh_id=mesh_id, name=name, device=device
    )
    verb.answer(answer, _recovered)


def _words() -> str:
    if sys.stdin.isatty():
        typed: str = click.prompt("Recovery words", hide_input=True, err=True)
        return typed
    text = sys.stdin.buffer.read(_MAX_WORDS_CHARACTERS + 1).decode("utf-8", "replace")
    if len(text) > _MAX_WORDS_CHARACTERS:
        raise UsageError("usage", "what stands on standard input is too long for recovery words")
    return text


def _revoked(answer: Object) -> Iterator[str]:
    for peer in answer["peers"]:
        yield f"removed {visible(peer['address'])}  key {fingerprint(peer['key'])}"
    for invite in answer["invites"]:
        yield f"  closed invite {invite[:8]}"
    yield from rotated_lines(answer["rotated"])


def rotated_lines(rotated: bool) -> Iterator[str]:
    """What became of the secrets of channels after somebody was removed."""
    if rotated:
        yield "  the channels have new secrets"
    else:
        yield "  whoever writes next in a channel gives it a new secret"


def _role_given(answer: Object) -> Iterator[str]:
    for peer in answer["changed"]:
        yield f"{visible(peer['address'])} is {answer['role']} now"
    if not answer["changed"]:
        yield f"nothing to change: {answer['role']} already"


def _rekeyed(answer: Object) -> Iterator[str]:
    yield f"replaced the box key in {visible(answer['mesh'])}: cards below {answer['card']} are void"
    yield from rotated_lines(answer["rotated"])


def _recovered(answer: Object) -> Iterator[str]:
    mesh = answer["mesh"]
    yield f"recovered {visible(mesh['alias'])}: you are its only owner, {visible(mesh['address'])}"
    for peer in answer["removed"]:
        yield f"  removed {visible(peer['address'])}  key {fingerprint(peer['key'])}"
    if answer["invites"]:
        yield f"  closed {len(answer['invites'])} invites"
    yield from rotated_lines(answer["rotated"])
    yield "next: claudemesh mesh log, for members whom a thief may have admitted"
