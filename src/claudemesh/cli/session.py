"""`claudemesh session`: a session for a container or CI job, which can do only what it is for."""

import os
from collections.abc import Iterator
from pathlib import Path

import click

from claudemesh.cli.durations import Duration
from claudemesh.cli.output import clock, now_ms, table
from claudemesh.cli.verb import Verb, mesh_option, verb
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import visible
from claudemesh.errors import UsageError

_DAY_MS = 86_400_000


@click.group(
    invoke_without_command=True,
    epilog="Example: claudemesh session --caps dm,chan --label ci --expires 2h --out job.session",
)
@click.option("--caps", default="dm", show_default=True, metavar="LIST", help="`dm` (write), `chan` (post), or both.")
@click.option("--label", default="job", show_default=True, help="What the session is called.")
@click.option("--expires", default=_DAY_MS, type=Duration(), metavar="TIME", help="24h by default; at most 7d.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="A new file; standard output by default.")
@mesh_option
@verb
@click.pass_context
def session(ctx: click.Context, verb: Verb, caps: str, label: str, expires: int, out: Path | None, mesh: str) -> None:
    """Hand a session to a container or CI job; list and end such sessions.

    The file holds the session's own keys and your signature for what it may do, and no key of
    yours: whoever has it can write as you within --caps until it expires or you end it, and can
    change nothing of the mesh. It is used by `claudemesh --session FILE send …` (or
    CLAUDEMESH_SESSION=FILE), needs no daemon, and replies come to you. Make one for each job: a copy
    that is used beside the original is refused.
    """
    if ctx.invoked_subcommand is not None:
        return
    if out is not None and out.exists():
        raise UsageError("usage", f"{out} exists; nothing is overwritten")
    wanted = [cap for cap in (part.strip() for part in caps.split(",")) if cap]
    answer = verb.ask("session.create", mesh=mesh, capabilities=wanted, label=label, expires_in_ms=expires)
    if out is not None:
        _write_new(out, answer.pop("bundle"))
        verb.answer(answer | {"file": str(out)}, _written)
        return
    if verb.as_json:
        verb.write_json(answer)
        return
    click.echo(answer["bundle"], nl=False)


@session.command("list", epilog="Example: claudemesh session list")
@mesh_option
@verb
def list_sessions(verb: Verb, mesh: str) -> None:
    """List the sessions that were handed out."""
    verb.answer(verb.ask("session.list", mesh=mesh), _listed)


@session.command(epilog="Example: claudemesh session end ci")
@click.argument("label", metavar="LABEL")
@mesh_option
@verb
def end(verb: Verb, label: str, mesh: str) -> None:
    """End a session before its time: everybody refuses it once they see your new card.

    LABEL is the session's label, or the first 8 digits of its key.
    """
    verb.answer(verb.ask("session.end", mesh=mesh, session=label), _ended)


def _write_new(path: Path, content: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)


def _written(answer: Object) -> Iterator[str]:
    made = answer["session"]
    yield f"session {visible(made['label'])} [{made['session'][:8]}]: {', '.join(made['capabilities'])}"
    yield f"  in {visible(answer['file'])}, a secret; until {clock(made['expires_at'])}"
    yield f"  use: claudemesh --session {visible(answer['file'])} send ADDRESS TEXT"


def _listed(answer: Object) -> list[str]:
    if not answer["sessions"]:
        return [f"no session was handed out in {visible(answer['mesh'])}"]
    rows = [
        (one["label"], one["session"][:8], ",".join(one["capabilities"]), clock(one["expires_at"]), _state(one))
        for one in answer["sessions"]
    ]
    return table(("LABEL", "KEY", "MAY", "UNTIL", "STATE"), rows)


def _state(one: Object) -> str:
    if one["ended_at"]:
        return f"ended {clock(one['ended_at'])}"
    return "open" if one["expires_at"] > now_ms() else "expired"


def _ended(answer: Object) -> Iterator[str]:
    one = answer["session"]
    yield f"ended {visible(one['label'])} [{one['session'][:8]}]"
