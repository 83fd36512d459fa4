"""The command `claudemesh`: finds the module of a verb, and turns every failure into words and an exit code.

Only the module of the verb that is run gets imported, so that a command starts fast.
"""

import atexit
import importlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

import click

from claudemesh import __version__
from claudemesh.cli.verb import show_error
from claudemesh.daemon.ipc import AnsweredError, Object, error_object
from claudemesh.errors import ClaudemeshError, LocalError, UsageError


class Entry(NamedTuple):
    """Where a verb is implemented, and its line in the list of verbs."""

    module: str
    attribute: str
    summary: str


VERBS: Final[dict[str, Entry]] = {
    "up": Entry("up", "up", "Start talking on this machine: daemon, embedded broker and the mesh `local`."),
    "join": Entry("join", "join", "Join a mesh by an invite link."),
    "invite": Entry("invite", "invite", "Make an invite link; list and revoke invites."),
    "peers": Entry("peers", "peers", "List the peers of a mesh and who is online."),
    "send": Entry("send", "send", "Send a message and say how far it came."),
    "inbox": Entry("inbox", "inbox", "Show received messages."),
    "watch": Entry("inbox", "watch", "Follow messages as they arrive."),
    "message": Entry("message", "message", "Show the timeline of one message: where it is, and who says so."),
    "whoami": Entry("peers", "whoami", "Show your addresses and keys."),
    "verify": Entry("peers", "verify", "Show the safety number to compare with a peer by voice."),
    "mesh": Entry("mesh", "mesh", "Create, list, show, leave or move a mesh; read its history; resolve a freeze."),
    "channel": Entry("channel", "channel", "Create, list, join or leave a channel; its members and history."),
    "group": Entry("group", "group", "Create, list, join or leave a group; its members."),
    "revoke": Entry("roster", "revoke", "Remove a peer, or a user with every device, from a mesh."),
    "role": Entry("roster", "role", "Make a peer a member, admin or owner."),
    "grant": Entry("grants", "grant", "Let a peer or user do something on this machine, or with --revoke no more."),
    "grants": Entry("grants", "grants", "Show what other peers may do on this machine."),
    "block": Entry("grants", "block", "Take nothing more from a peer or user."),
    "unblock": Entry("grants", "unblock", "Lift every block of a peer or user."),
    "hold": Entry("hold", "hold", "List, release or refuse messages of agents that wait for you."),
    "budget": Entry("hold", "budget", "Show or change how much agents may cause here before you are asked."),
    "pause": Entry("pause", "pause", "Stop the agents of a mesh on this machine, at once."),
    "resume": Entry("pause", "resume", "Let the agents of a mesh go on: they get what came meanwhile."),
    "dnd": Entry("pause", "dnd", "Have agents here get only what may interrupt them, or with `off` everything."),
    "session": Entry("session", "session", "Hand a session to a container or CI job; list and end such sessions."),
    "rekey": Entry("roster", "rekey", "Replace this machine's box key, because somebody may have copied it."),
    "recover": Entry(
        "roster", "recover", "Take a mesh back by the recovery words that were printed when it was created."
    ),
    "device": Entry("device", "device", "Link another device of yours."),
    "backup": Entry("backup", "backup", "Write an encrypted copy of your keys."),
    "restore": Entry("backup", "restore", "Bring back the keys of a backup."),
    "doctor": Entry("doctor", "doctor", "Check this machine, the daemon and the brokers, with remedies."),
    "daemon": Entry("daemon", "daemon", "Start, stop and inspect the daemon."),
    "broker": Entry("broker", "broker", "Run a broker: it routes ciphertext and orders rosters, and can read neither."),
    "install": Entry("install", "install", "Set up Claude Code, Codex, Gemini CLI or opencode for messages of peers."),
    "uninstall": Entry("install", "uninstall", "Take our entries out of the hosts again."),
    "run": Entry("run", "run", "Start an agent, set up for this one run and under a name of its own."),
    "statusline": Entry("statusline", "statusline", "Print one line for a host's status bar."),
    "mcp": Entry("mcp", "mcp", "Serve MCP to an agent on standard input and output; hosts start it."),
    "hook": Entry("hook", "hook", "Answer an event of a host; hosts call this, not people."),
    "completion": Entry("completion", "completion", "Print the completion script of a shell."),
}


class LazyGroup(click.Group):
    """A group that imports a verb's module when that verb is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = VERBS.get(cmd_name)
        if entry is None:
            return None
        found = getattr(importlib.import_module(f"claudemesh.cli.{entry.module}"), entry.attribute)
        return found if isinstance(found, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(f"There is no command {args[0]!r}.{_nearest(args[0])}", ctx)
        return super().resolve_command(ctx, args)


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--session",
    "session_file",
    type=click.Path(path_type=Path),
    envvar="CLAUDEMESH_SESSION",
    metavar="FILE",
    help="Speak as a session that was handed out: only `send`, and needs no daemon.",
)
@click.version_option(__version__, message="claudemesh %(version)s")
@click.pass_context
def cli(ctx: click.Context, session_file: Path | None) -> None:
    """A wire between coding agents: end-to-end encrypted messages by name.

    Every command takes --json; docs/cli.md is the reference. Exit codes: 0 done, 1 defect, 2 usage,
    3 this machine, 4 address, 5 refused, 6 unreachable or too late, 7 integrity.

    \b
    Start:   claudemesh up
             claudemesh invite              # on the other side: claudemesh join LINK
             claudemesh send bob.desktop "the build is green"
    """
    ctx.obj = session_file


class Departure:
    """Ends a process whose verb is done and whose threads have ended: taking its modules apart takes 5 ms of 60."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        """None: the verb failed, or did not come to its end."""

    def leave(self) -> None:
        """End now, as the interpreter is about to."""
        if self.exit_code is None:
            return
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.exit_code)


def main() -> NoReturn:
    """Run the command line and leave with the exit code of what happened."""
    as_json = "--json" in sys.argv[1:]
    departure = Departure()
    atexit.register(departure.leave)
    try:
        exit_code = cli.main(prog_name="claudemesh", standalone_mode=False)
        sys.stdout.flush()
    except AnsweredError as error:
        _leave(error.error, as_json)
    except ClaudemeshError as error:
        _leave(error_object(error), as_json)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _leave(_usage(error), as_json)
    except (click.Abort, KeyboardInterrupt):
        _leave(error_object(LocalError("interrupted")), as_json)
    except BrokenPipeError:
        # The reader of a pipe went away, as `| head` does; the interpreter must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        _leave(error_object(LocalError("disk", _os_error(error))), as_json)
    except Exception as error:  # a defect: its text may quote what was typed, so that only its type is shown
        if os.environ.get("CLAUDEMESH_DEBUG"):
            raise
        from claudemesh.daemon.logs import where_of

        _leave(error_object(LocalError("internal", f"{type(error).__name__} at {where_of(error)}")), as_json)
    departure.exit_code = exit_code if isinstance(exit_code, int) else 0
    sys.exit(departure.exit_code)


def _leave(error: Object, as_json: bool) -> NoReturn:
    if as_json:
        print(json.dumps({"error": error}))
    else:
        show_error(error)
    sys.exit(int(error.get("exit_code", 1)))


def _usage(error: click.ClickException) -> Object:
    command = getattr(getattr(error, "ctx", None), "command_path", "claudemesh")
    described = error_object(UsageError("usage", error.format_message()))
    return described | {"hint": f"See `{command} --help`."}


def _os_error(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


def _nearest(word: str) -> str:
    import difflib

    near = difflib.get_close_matches(word, VERBS, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
