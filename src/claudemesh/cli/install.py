"""`claudemesh install`, `uninstall`: set up the programs that agents run in, and take that back."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple, TypeVar

import click

from claudemesh.cli.verb import Verb, verb
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import visible
from claudemesh.errors import UsageError
from claudemesh.hosts.base import NAMES, Change, Host, Place, Scope, Unwritable, host_of
from claudemesh.hosts.settings import Kept

F = TypeVar("F", bound=Callable[..., Any])


class Outcome(NamedTuple):
    """What was done, or is to be done, host by host."""

    changes: dict[str, list[Change]]
    refused: dict[str, Unwritable]
    """Hosts with settings that are left as they are."""


_MEASURED: Final = "measured"


def _where(function: F) -> F:
    """Give a command the host and the scope."""
    scope = click.option(
        "--scope",
        type=click.Choice(["user", "project"]),
        default="user",
        show_default=True,
        help="For you everywhere, or in the files that this project shares.",
    )
    host = click.argument("host", required=False, type=click.Choice(NAMES))
    return host(scope(function))


@click.command(epilog="Example: claudemesh install claude-code --yes")
@_where
@click.option("--allow-tools", is_flag=True, help="Let the agent use our tools without asking each time.")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@verb
def install(verb: Verb, host: str | None, scope: Scope, allow_tools: bool, dry_run: bool, yes: bool) -> None:
    """Set up Claude Code, Codex, Gemini CLI or opencode for messages of peers.

    Without a name, those that are found here. Shows what it will change, then does it; a second
    time there is nothing to do. A settings file with comments or a mistake in it is left as it is,
    and you are told what to add by hand; the other hosts are set up all the same.
    """
    place = Place.of_environment(scope, allow_tools)
    hosts = _chosen(place, host)
    outcome = _each(hosts, lambda one: one.changes(place))
    if not dry_run and any(outcome.changes.values()):
        _agree(verb, hosts, outcome.changes, yes)
        outcome = _each(hosts, lambda one: one.install(place))
    _answer(verb, hosts, outcome, lambda one: _described(place, one, outcome.changes[one.name]), done=not dry_run)


@click.command(epilog="Example: claudemesh uninstall claude-code")
@_where
@verb
def uninstall(verb: Verb, host: str | None, scope: Scope) -> None:
    """Take our entries out of the hosts again.

    Out of all of them, or the named one. A file that nobody has written to since gets back the
    bytes that it had; of any other one our entries alone are removed. A settings file that cannot
    be read is left as it is, and does not keep the other hosts from it.
    """
    place = Place.of_environment(scope)
    hosts = [host_of(name) for name in ([host] if host else NAMES)]
    outcome = _each(hosts, lambda one: _take_back(place, one))
    _answer(verb, hosts, outcome, lambda one: _removed(one, outcome.changes[one.name]), done=True)


def _take_back(place: Place, host: Host) -> list[Change]:
    try:
        return host.uninstall(place)
    except Unwritable as error:
        if error.names_us() or Kept(place, host.name).exists:
            raise
        return []  # somebody else's settings, in which nothing of ours ever was


def _each(hosts: list[Host], do: Callable[[Host], list[Change]]) -> Outcome:
    """Do it for every host; of several, one that refuses does not keep the others from it."""
    outcome = Outcome({}, {})
    for one in hosts:
        try:
            outcome.changes[one.name] = do(one)
        except Unwritable as error:
            outcome.refused[one.name] = error
    if outcome.refused and not outcome.changes:
        raise next(iter(outcome.refused.values()))
    return outcome


def _answer(
    verb: Verb, hosts: Iterable[Host], outcome: Outcome, describe: Callable[[Host], Object], *, done: bool
) -> None:
    """Tell what was done; what was not is told with what to do, and by the exit code."""
    rows = [describe(one) if one.name in outcome.changes else _refused(one, outcome.refused[one.name]) for one in hosts]
    verb.answer({"done": done and not outcome.refused, "hosts": rows}, _lines)
    if outcome.refused:
        click.get_current_context().exit(Unwritable.exit_code)


def _chosen(place: Place, name: str | None) -> list[Host]:
    hosts = [host_of(one) for one in ([name] if name else NAMES)]
    found = [one for one in hosts if one.probe(place).program]
    if name and not found:
        raise UsageError("usage", f"{hosts[0].title} is not installed here: its program is not on the PATH")
    if not found:
        names = ", ".join(one.title for one in hosts)
        raise UsageError("usage", f"none of {names} is on the PATH; any other MCP client starts `claudemesh mcp`")
    return found


def _agree(verb: Verb, hosts: list[Host], planned: dict[str, list[Change]], yes: bool) -> None:
    if yes or verb.as_json:
        return
    for one in hosts:
        for change in planned.get(one.name, []):
            click.echo(f"{one.title}: {visible(change.path)}\n    {visible(change.what)}")
    if not click.confirm("Do this?", default=True):
        raise click.Abort


def _described(place: Place, host: Host, changes: list[Change]) -> Object:
    probe = host.probe(place)
    return {
        "host": host.name,
        "title": host.title,
        "version": probe.version,
        _MEASURED: probe.is_measured,
        "set_up": probe.is_set_up,
        "reach": probe.reach,
        "changes": [change._asdict() for change in changes],
        "problems": list(probe.problems),
    }


def _removed(host: Host, changes: list[Change]) -> Object:
    return {"host": host.name, "title": host.title, "changes": [change._asdict() for change in changes], "problems": []}


def _refused(host: Host, error: Unwritable) -> Object:
    problems = [f"{error.detail}. {error.hint()}"]
    return {"host": host.name, "title": host.title, "changes": [], "problems": problems, "refused": True}


def _lines(answer: Object) -> Iterator[str]:
    for one in answer["hosts"]:
        version = f" {visible(one['version'])}" if one.get("version") else ""
        if not one["changes"]:
            yield f"{one['title']}{version}: {'not done' if one.get('refused') else 'nothing to do'}"
        for change in one["changes"]:
            yield f"{one['title']}{version}: {visible(change['path'])}: {visible(change['what'])}"
        if one.get(_MEASURED) is False:
            yield "  this version was not measured: `claudemesh doctor --wake SESSION` shows whether it works"
        for line in (line for problem in one["problems"] for line in problem.split("\n")):
            yield f"  {visible(line)}"
