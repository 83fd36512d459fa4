"""`claudemesh daemon`: start, stop, inspect, and run in the foreground for a service manager."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from claudemesh.cli.output import clock, table
from claudemesh.cli.verb import Verb, verb
from claudemesh.daemon import launch
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import visible

_NOT_RUNNING: Object = {"running": False}
ATTACHMENTS: Final = {"hook": "claudemesh.hosts.hooks:attach", "mcp.attach": "claudemesh.mcp.serving:attach"}
"""What takes over a connection to the daemon; the daemon imports it when it is first asked for."""
ADAPTERS: Final = {
    "claude-code": "claudemesh.hosts.claude_code:attend",
    "codex": "claudemesh.hosts.codex:attend",
    "gemini": "claudemesh.hosts.processes:attend",
    "opencode": "claudemesh.hosts.processes:attend",
}
"""What reaches the running sessions of a host by itself."""


@click.group(epilog="Example: claudemesh daemon status")
def daemon() -> None:
    """Start, stop and inspect the daemon.

    Any command starts it when needed; you rarely have to.
    """


@daemon.command(epilog="Example: claudemesh daemon start")
@verb
def start(verb: Verb) -> None:
    """Start the daemon, unless it runs."""
    verb.answer(verb.ask("daemon.status"), _status)


@daemon.command(epilog="Example: claudemesh daemon stop")
@verb
def stop(verb: Verb) -> None:
    """Stop the daemon, and the embedded broker with it. Queued messages stay queued."""
    client = launch.running(verb.config)
    if client is None:
        verb.answer(_NOT_RUNNING, lambda _: ["the daemon does not run"])
        return
    with client:
        client.call("daemon.stop", {})
        launch.wait_until_gone(client)
    verb.answer(_NOT_RUNNING, lambda _: ["stopped"])


@daemon.command(epilog="Example: claudemesh daemon status --json")
@verb
def status(verb: Verb) -> None:
    """Say whether the daemon runs, and how its meshes are linked. Starts nothing; exit code 3 when it does not run."""
    client = launch.running(verb.config)
    if client is None:
        verb.answer(_NOT_RUNNING, lambda _: ["the daemon does not run"])
        click.get_current_context().exit(3)
    with client:
        answer = client.call("daemon.status", {})
    verb.answer(answer, _status)


@daemon.command(epilog="Example: claudemesh daemon logs --lines 50")
@click.option("--lines", default=20, type=click.IntRange(1, 100_000), show_default=True, help="How many, the newest.")
@verb
def logs(verb: Verb, lines: int) -> None:
    """Print the newest lines of the daemon's log: events, codes and counts; no names, keys or texts."""
    found = [line for path in (verb.config.log, verb.config.crash_output) for line in _tail(path, lines)]
    if verb.as_json:
        verb.write_json({"lines": found})
        return
    for line in found:
        click.echo(visible(line))


@daemon.command(epilog="Example: claudemesh daemon run   # ExecStart of a systemd user service")
@click.option("--announce", is_flag=True, hidden=True, help="Write one line when ready, then close standard output.")
def run(announce: bool) -> None:
    """Run the daemon in the foreground, until SIGTERM or `claudemesh daemon stop`."""
    from claudemesh.daemon.app import run_daemon

    click.get_current_context().exit(run_daemon(announce=announce, attachments=ATTACHMENTS, adapters=ADAPTERS))


def _status(answer: Object) -> Iterator[str]:
    yield f"running: process {answer['pid']}, version {answer['version']}, since {clock(answer['started_at'])}"
    yield f"  configuration {visible(answer['config_dir'])}"
    if answer["local_broker"]:
        yield f"  embedded broker {visible(answer['local_broker'])}"
    rows = [
        (
            one["alias"],
            one["address"],
            one["link"] + (", agents paused" if one["paused_since"] else ""),
            one["link_problem"],
        )
        for one in answer["meshes"]
    ]
    if rows:
        yield from table(("MESH", "ADDRESS", "LINK", "PROBLEM"), rows)


def _tail(path: Path, lines: int) -> list[str]:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, lines)]
    except FileNotFoundError:
        return []
