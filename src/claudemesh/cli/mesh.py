"""`claudemesh mesh`: create, list, show, leave, move; its history and heads are in `cli.heads`."""

from collections.abc import Iterator

import click

from claudemesh.cli.completing import complete_mesh
from claudemesh.cli.heads import heads, log, trust
from claudemesh.cli.output import ago, bad, fingerprint, good, now_ms, table
from claudemesh.cli.verb import Verb, verb
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import visible


@click.group(epilog="Example: claudemesh mesh create team --broker wss://mesh.example.org/ws")
def mesh() -> None:
    """Create, list, show, leave or move a mesh; read its history; resolve a freeze."""


@mesh.command(epilog="Example: claudemesh mesh create team --broker wss://mesh.example.org/ws")
@click.argument("alias")
@click.option("--broker", "broker_url", required=True, metavar="URL", help="ws://, wss:// or unix:// URL of a broker.")
@click.option("--name", default="", help="What you are called in the mesh; your login name by default.")
@click.option("--device", default="", help="What this machine is called; its host name by default.")
@verb
def create(verb: Verb, alias: str, broker_url: str, name: str, device: str) -> None:
    """Found a mesh, of which you are the owner.

    Prints the recovery words once. Whoever has them can take the mesh over; keep them offline.
    """
    answer = verb.ask("mesh.create", alias=alias, broker_url=broker_url, name=name, device=device)
    verb.answer(answer, _created)


@mesh.command("list", epilog="Example: claudemesh mesh list --json")
@verb
def list_meshes(verb: Verb) -> None:
    """List your meshes and whether their brokers are reached."""
    verb.answer(verb.ask("mesh.list"), _listed)


@mesh.command(epilog="Example: claudemesh mesh show team")
@click.argument("alias", default="", shell_complete=complete_mesh)
@verb
def show(verb: Verb, alias: str) -> None:
    """Show one mesh: its roster's head, its broker, and the proof if it is frozen."""
    verb.answer(verb.ask("mesh.show", mesh=alias), _shown)


@mesh.command(epilog="Example: claudemesh mesh leave team")
@click.argument("alias", shell_complete=complete_mesh)
@click.option("--forget", is_flag=True, help="Forget the keys even if the broker cannot be told.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@verb
def leave(verb: Verb, alias: str, forget: bool, yes: bool) -> None:
    """Leave a mesh: the roster says so, and the keys of this peer are deleted."""
    if not yes:
        click.confirm(f"Leave {visible(alias)} and delete its keys on this machine?", abort=True, err=True)
    verb.answer(verb.ask("mesh.leave", mesh=alias, forget=forget), _left)


@mesh.command(epilog="Example: claudemesh mesh move local wss://mesh.example.org/ws")
@click.argument("alias", shell_complete=complete_mesh)
@click.argument("url")
@verb
def move(verb: Verb, alias: str, url: str) -> None:
    """Move a mesh to another broker, with its members and the whole history of its roster.

    Only an owner can. The old broker then sends every peer to the new one, which must be able to
    reach it. Run again after a failure: it continues where it stopped.
    """
    verb.answer(verb.ask("mesh.move", mesh=alias, broker_url=url), _moved)


mesh.add_command(log)
mesh.add_command(heads)
mesh.add_command(trust)


def _created(answer: Object) -> Iterator[str]:
    yield f"created {visible(answer['mesh']['alias'])}; you are its owner, {visible(answer['mesh']['address'])}"
    if answer["recovery_words"]:
        yield "recovery words (shown once; whoever has them can take the mesh over):"
        yield f"  {answer['recovery_words']}"
        yield "  to be written down with them: the mesh id and the broker"
        yield f"  {answer['mesh']['id'][:32]}  {visible(answer['mesh']['broker_url'])}"
    yield f"next: claudemesh invite --mesh {visible(answer['mesh']['alias'])}"


def _listed(answer: Object) -> list[str]:
    if not answer["meshes"]:
        return ["no mesh yet: claudemesh up, claudemesh mesh create, or claudemesh join LINK"]
    headings = ("MESH", "ADDRESS", "ROLE", "PEERS", "LINK", "UNREAD", "QUEUED", "BROKER")
    return table(headings, [_row(one) for one in answer["meshes"]])


def _row(one: Object) -> tuple[str, ...]:
    counts = str(one["members"]), _link(one), str(one["unread"]), str(one["queued"])
    return one["alias"], one["address"], one["role"], *counts, one["broker_url"]


def _shown(answer: Object) -> Iterator[str]:
    one, now = answer["mesh"], now_ms()
    link = good(_link(one)) if one["link"] == "open" and not one["frozen"] else bad(_link(one))
    yield f"mesh      {visible(one['alias'])}  {one['id']}"
    yield f"you       {visible(one['address'])}  {one['role']}  key {fingerprint(answer['peer'])}"
    yield f"broker    {visible(one['broker_url'])}  key {fingerprint(answer['broker_key'])}  link {link}"
    yield f"roster    entry {answer['seq']}, signed by the broker {ago(answer['signed_at'], now)}"
    yield f"head      {answer['head']}"
    yield f"by voice  {answer['head_number']}"
    yield f"peers     {one['members']}   unread {one['unread']}   queued {one['queued']}   held {one['held']}"
    if one["paused_since"]:
        yield bad(f"agents    paused since {ago(one['paused_since'], now)}; see claudemesh resume")
    elif one["dnd_since"]:
        yield bad(f"agents    get only what may interrupt them, since {ago(one['dnd_since'], now)}; see claudemesh dnd")
    if answer["conflict"]:
        yield bad("frozen: the broker contradicted itself; see claudemesh mesh heads. The proof:")
        for name, value in answer["conflict"].items():
            yield f"  {visible(str(name))}: {visible(str(value))}"


def _left(answer: Object) -> Iterator[str]:
    known = "the roster says so" if answer["revoked"] else "the broker was not told; the other peers still list you"
    yield f"left {visible(answer['alias'])}: {known}"


def _moved(answer: Object) -> Iterator[str]:
    one = answer["mesh"]
    yield f"moved {visible(one['alias'])} from {visible(answer['from_url'])} to {visible(one['broker_url'])}"


def _link(one: Object) -> str:
    if one["frozen"]:
        return "frozen"
    if one["link_problem"]:
        return f"{one['link']} ({one['link_problem']})"
    return f"{one['link']}, agents paused" if one["paused_since"] else str(one["link"])
