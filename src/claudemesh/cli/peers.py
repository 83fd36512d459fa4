"""`claudemesh peers`, `whoami`, `verify`: who is who."""

from collections.abc import Iterator

import click

from claudemesh.cli.completing import complete_peer
from claudemesh.cli.output import ago, fingerprint, now_ms, table
from claudemesh.cli.verb import Verb, mesh_option, verb
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import visible
from claudemesh.daemon.wording import REACH_WORDS


@click.command(epilog="Example: claudemesh peers --mesh team")
@mesh_option
@verb
def peers(verb: Verb, mesh: str) -> None:
    """List the peers of a mesh and who is online.

    The names and keys come from the roster, which every peer verifies; who is online, and idle or
    busy, is what the broker says; how a session is reached is what its own peer says.
    """
    verb.answer(verb.ask("peers", mesh=mesh), _listed)


@click.command(epilog="Example: claudemesh whoami")
@click.option("--mesh", default="", metavar="MESH", help="Only this mesh.")
@verb
def whoami(verb: Verb, mesh: str) -> None:
    """Show your addresses and keys."""
    verb.answer(verb.ask("whoami", mesh=mesh), _identities)


@click.command(epilog="Example: claudemesh verify bob.desktop")
@click.argument("peer", shell_complete=complete_peer)
@click.option("--matches", is_flag=True, help="They match: the name is theirs, whoever else uses it.")
@mesh_option
@verb
def verify(verb: Verb, peer: str, matches: bool, mesh: str) -> None:
    """Show the safety number to compare with a peer by voice.

    Thirty digits made of both keys. When the other side reads out the same ones, nobody stands
    between you. A name that two use addresses nobody; with --matches you decide whose it is here.
    """
    verb.answer(verb.ask("verify", mesh=mesh, peer=peer, matches=matches), _verified)


def _listed(answer: Object) -> Iterator[str]:
    rows = [_row(one, answer["presence"]) for one in answer["peers"]]
    yield from table(("ADDRESS", "KEY", "ROLE", "TRUST", "ONLINE", "SESSIONS"), rows)
    if not answer["presence"]:
        yield "The broker could not be asked who is online."


def _row(one: Object, presence: bool) -> tuple[str, ...]:
    online = "?" if not presence else "yes" if one["online"] else ago(one["last_seen_at"], now_ms())
    sessions = ", ".join(_session(session) for session in one["sessions"] if session["label"])
    return one["address"], fingerprint(one["key"]), one["role"], one["trust"], online, sessions


def _session(session: Object) -> str:
    """What it is called, what it does, and when it reads: only what its peer has said."""
    said = [session["status"], REACH_WORDS.get(session["reach"], ""), session["about"]]
    return f"{session['label']} ({', '.join(one for one in said if one)})"


def _identities(answer: Object) -> list[str]:
    if not answer["identities"]:
        return ["no mesh yet: claudemesh up, claudemesh mesh create, or claudemesh join LINK"]
    rows = [
        (one["mesh"], one["address"], one["role"], fingerprint(one["peer"]), fingerprint(one["user_key"]))
        for one in answer["identities"]
    ]
    return table(("MESH", "ADDRESS", "ROLE", "PEER KEY", "USER KEY"), rows)


def _verified(answer: Object) -> Iterator[str]:
    yield f"{visible(answer['address'])} in {visible(answer['mesh'])}, key {fingerprint(answer['key'])}"
    yield f"  {answer['safety_number']}"
    if answer["name"]:
        yield f"{visible(answer['name'])} means this user here from now on, whoever else uses the name"
        return
    yield "Ask for the same number on the other side by voice: it must be equal, digit by digit."
