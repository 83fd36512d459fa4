"""`claudemesh doctor`: what is wrong, and what to do about it."""

from collections.abc import Iterator

import click

from claudemesh.cli.output import bad, good
from claudemesh.cli.verb import Verb, verb
from claudemesh.daemon.config_dir import ConfigDir, mode_problem
from claudemesh.daemon.ipc import AnsweredError, Object, error_object
from claudemesh.daemon.rendering import visible
from claudemesh.errors import ClaudemeshError, LocalError


@click.command(epilog="Example: claudemesh doctor --wake payments-api")
@click.option("--wake", default="", metavar="SESSION", help="Send a message to this session here, and time each rung.")
@click.option("--within", default=30, type=click.IntRange(1, 600), show_default=True, help="Seconds that it may take.")
@verb
def doctor(verb: Verb, wake: str, within: int) -> None:
    """Check this machine, the daemon and the brokers, with remedies.

    Looks at the modes of the configuration, the daemon, each broker, the clock against each
    broker's, the age of each roster's head, the audit log and the hosts that are set up. With --wake,
    an agent's session on this machine gets a message by the real path. Exit code of the first failure,
    0 when all is well.
    """
    checks = _modes(verb.config) + _daemon(verb) + _hosts()
    if wake:
        from claudemesh.cli.waking import wake as wake_session

        checks += wake_session(verb, wake, within)
    failed = [check for check in checks if not check["ok"]]
    verb.answer({"ok": not failed, "checks": checks}, _lines)
    if failed:
        click.get_current_context().exit(failed[0]["exit_code"])


def _modes(config: ConfigDir) -> list[Object]:
    """Read here and not in the daemon, which refuses to start when they are wrong."""
    if not config.path.exists():
        return [_check("configuration", "", "not made yet; the first command makes it")]
    private = [config.path, *sorted(path for path in config.path.iterdir() if path.is_file())]
    problems = [problem for problem in map(mode_problem, private) if problem]
    if not problems:
        return [_check("configuration", "", f"{config.path} is yours alone")]
    return [_check("configuration", problem, "", "Run the chmod that is printed here.", 3) for problem in problems]


def _hosts() -> list[Object]:
    """The hosts that are set up here; of the others nothing is said."""
    from claudemesh.hosts.base import NAMES, Place, host_of

    place, checks = Place.of_environment("user"), list[Object]()
    for host in map(host_of, NAMES):
        try:
            probe = host.probe(place)
        except ClaudemeshError as error:
            checks.append(_failed(host.name, error_object(error)))
            continue
        if not probe.is_set_up or not probe.program:
            continue
        known = "" if probe.is_measured else ", which was not measured"
        detail = f"{host.title} {probe.version}{known} is set up"
        problem = next(iter(probe.problems), "")
        # A problem of a host says what to do itself.
        checks.append(_check(host.name, problem, detail, exit_code=LocalError.exit_code if problem else 0))
    return checks


def _daemon(verb: Verb) -> list[Object]:
    try:
        answer = verb.ask("doctor")
    except AnsweredError as error:
        return [_failed("daemon", error.error)]
    except ClaudemeshError as error:
        return [_failed("daemon", error_object(error))]
    return list(answer["checks"])


def _check(name: str, problem: str, detail: str, remedy: str = "", exit_code: int = 0) -> Object:
    described = {"name": name, "mesh": "", "ok": not problem, "detail": problem or detail}
    return described | {"remedy": remedy, "exit_code": exit_code}


def _failed(name: str, error: Object) -> Object:
    return _check(name, f"{error['code']}: {error['message']}", "", error["hint"], error["exit_code"])


def _lines(answer: Object) -> Iterator[str]:
    for check in answer["checks"]:
        mark = good("ok  ") if check["ok"] else bad("FAIL")
        where = f" [{visible(check['mesh'])}]" if check["mesh"] else ""
        yield f"{mark}  {check['name']}{where}: {visible(check['detail'])}"
        if not check["ok"] and check["remedy"]:
            yield f"      {visible(check['remedy'])}"
    yield "all is well" if answer["ok"] else "something needs attention"
