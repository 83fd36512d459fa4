"""What every verb shares: its options, asking the daemon, and writing the answer or the failure."""

import functools
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from claudemesh.cli.completing import complete_mesh
from claudemesh.daemon import launch
from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import visible
from claudemesh.errors import UsageError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

TOOK_EFFECT: Final = {
    "nothing": "Nothing took effect.",
    "unknown": "Whether it took effect is not known.",
    "queued": "The message stays queued and is sent when that is possible.",
    "accepted": "The broker has the message and keeps it for the recipient.",
    "delivered": "The recipient's peer has the message.",
    "offered": "The message was handed to the recipient's host.",
    "read": "The message is in the recipient's context.",
}


class Verb:
    """One run of a verb: how it was asked to speak, and its way to the daemon."""

    def __init__(self, as_json: bool, verbose: bool, session_file: Path | None = None) -> None:
        self.as_json = as_json
        self.session_file = session_file
        """The file of a session that was handed out: it speaks for itself, and has no daemon."""
        self.config = ConfigDir.of_environment()
        self._shows_progress = verbose or (sys.stderr.isatty() and not as_json)

    def ask(self, op: str, /, **args: Any) -> Object:
        """One operation of the daemon, which is started when it does not run."""
        self._require_daemon()
        with launch.connect(self.config, self.progress) as daemon:
            return daemon.call(op, args, self._progress_event)

    def follow(self, op: str, on_event: Callable[[Object], None], /, **args: Any) -> Object:
        """An operation that reports events, then an answer."""
        self._require_daemon()
        with launch.connect(self.config, self.progress) as daemon:
            events = daemon.stream(op, args, self._progress_event)
            while True:
                try:
                    event = next(events)
                except StopIteration as end:
                    answer: Object = end.value
                    return answer
                on_event(event)

    def answer(self, answer: Object, lines: Callable[[Object], Iterable[str]]) -> None:
        """Write the answer: as one JSON object, or as lines for a person, in which nothing acts on a terminal."""
        if self.as_json:
            self.write_json(answer)
            return
        for line in lines(answer):
            click.echo(line)

    def write_json(self, content: Object) -> None:
        """Write one JSON object as one line, at once."""
        print(json.dumps(content), flush=True)

    def progress(self, text: str) -> None:
        """Tell a person what takes time."""
        if self._shows_progress:
            click.echo(f"… {visible(text)}", err=True)

    def _require_daemon(self) -> None:
        if self.session_file is not None:
            raise UsageError("usage", "a session that was handed out can only send (--session, CLAUDEMESH_SESSION)")

    def _progress_event(self, event: Object) -> None:
        total = event.get("total")
        self.progress(str(event.get("text", "")) + (f" ({event.get('done')} of {total})" if total else ""))


def verb(function: F) -> F:
    """Give a command `--json` and `--verbose`, and its function a `Verb` as first argument."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/spec/ipc.md).")
    @click.option("--verbose", "-v", is_flag=True, help="Say on standard error what takes time.")
    @functools.wraps(function)
    def run(as_json: bool, verbose: bool, **options: Any) -> Any:
        session_file = click.get_current_context().find_root().obj
        return function(Verb(as_json, verbose, session_file), **options)

    return run  # type: ignore[return-value]


def mesh_option(function: F) -> F:
    """Give a command `--mesh`."""
    option = click.option(
        "--mesh",
        default="",
        metavar="MESH",
        shell_complete=complete_mesh,
        help="Alias of the mesh, or 8 digits of its id; not needed when there is one.",
    )
    return option(function)


def show_error(error: Object) -> None:
    """Write a failure for a person: what happened, whether anything took effect, what to do.

    What is to be copied into a file stands below that, in lines of its own.
    """
    message = visible(str(error.get("message", "")))
    hint, *to_copy = map(visible, str(error.get("hint", "")).split("\n"))
    click.echo(f"claudemesh: {message}", err=True)
    effect = TOOK_EFFECT.get(str(error.get("took_effect")), "")
    remedy = hint if hint != message else ""
    click.echo("  " + " ".join(part for part in (effect, remedy) if part) + f" [{error.get('code')}]", err=True)
    for line in to_copy:
        click.echo(line, err=True)
