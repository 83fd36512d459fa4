"""`claudemesh grant`, `grants`, `block`, `unblock`: who may do what on this machine."""

from collections.abc import Iterator

import click

from claudemesh.cli.completing import complete_peer
from claudemesh.cli.output import bad, table
from claudemesh.cli.verb import Verb, mesh_option, verb
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import visible

PERMISSIONS = ("dm", "ask", "channel", "now", "transcript")
_session_option = click.option(
    "--session", default="", metavar="LABEL", help="Only at this session of yours; at all of them by default."
)


@click.command(epilog="Example: claudemesh grant bob.desktop now --session payments-api")
@click.argument("peer", shell_complete=complete_peer)
@click.argument("permissions", nargs=-1, required=True, type=click.Choice(PERMISSIONS), metavar="PERMISSION…")
@click.option("--revoke", is_flag=True, help="Take them away instead.")
@_session_option
@mesh_option
@verb
def grant(verb: Verb, peer: str, permissions: tuple[str, ...], revoke: bool, session: str, mesh: str) -> None:
    """Let a peer or user do something on this machine, or with --revoke no more.

    PERMISSION is `dm` (write), `ask` (ask and wait), `channel` (post), `now` (interrupt a busy
    session) or `transcript` (ask about a session's transcript). Every peer of the mesh has the first
    three; your own devices have all. Nobody but a sender who is refused learns of it.
    """
    answer = verb.ask("grant", mesh=mesh, peer=peer, permissions=list(permissions), session=session, revoke=revoke)
    verb.answer(answer, _listed)


@click.command(epilog="Example: claudemesh grants bob")
@click.argument("peer", default="", shell_complete=complete_peer)
@mesh_option
@verb
def grants(verb: Verb, peer: str, mesh: str) -> None:
    """Show what other peers may do on this machine."""
    verb.answer(verb.ask("grants", mesh=mesh, peer=peer), _listed)


@click.command(epilog="Example: claudemesh block mallory")
@click.argument("peer", shell_complete=complete_peer)
@_session_option
@mesh_option
@verb
def block(verb: Verb, peer: str, session: str, mesh: str) -> None:
    """Take nothing more from a peer or user.

    Each of its messages is refused, with a signed receipt that says so, and shown to nobody here. It stays in the mesh:
    to remove it for everybody, see `claudemesh revoke`.
    """
    verb.answer(verb.ask("block", mesh=mesh, peer=peer, session=session), _listed)


@click.command(epilog="Example: claudemesh unblock mallory")
@click.argument("peer", shell_complete=complete_peer)
@mesh_option
@verb
def unblock(verb: Verb, peer: str, mesh: str) -> None:
    """Lift every block of a peer or user. What was refused meanwhile does not come back."""
    verb.answer(verb.ask("unblock", mesh=mesh, peer=peer), _listed)


def _listed(answer: Object) -> Iterator[str]:
    rows = [(one["address"], _may(one), "; ".join(map(_rule, one["rules"]))) for one in answer["peers"]]
    if not rows:
        yield f"there is no other peer in {visible(answer['mesh'])}"
        return
    yield from table(("PEER", "MAY", "DECIDED"), rows)
    blocked = [visible(one["address"]) for one in answer["peers"] if one["blocked"]]
    if blocked:
        yield bad(f"blocked: {', '.join(blocked)}")


def _may(one: Object) -> str:
    return "nothing (blocked)" if one["blocked"] else " ".join(one["permissions"]) or "nothing"


def _rule(rule: Object) -> str:
    if rule["permission"] == "block":
        decided = "blocked" if rule["allowed"] else "not blocked"
    else:
        decided = ("+" if rule["allowed"] else "-") + rule["permission"]
    whom = " (user)" if rule["scope"] == "user" else ""
    return f"{decided}{whom}" + (f" at {rule['session']}" if rule["session"] else "")
