"""`claudemesh run`: start an agent with a name in the mesh, set up for this one run where it is not set up for good."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, NoReturn

import click

from claudemesh.cli.verb import Verb, verb
from claudemesh.daemon.ipc import Object
from claudemesh.errors import UsageError
from claudemesh.hosts.base import Place, host_of, require_words

HOST_OF_PROGRAM: Final = {"claude": "claude-code", "codex": "codex", "gemini": "gemini", "opencode": "opencode"}


@click.command(
    epilog='Example: claudemesh run --label payments --tag repo=billing -- claude "start with the tests"',
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option("--label", default="", help="What others address it by; the base name of the directory by default.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Others reach it by `tag:key=value`.")
@click.option("--mesh", default="", metavar="MESH", help="The only mesh that it speaks in; every one by default.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@verb
def run(verb: Verb, label: str, tags: tuple[str, ...], mesh: str, command: tuple[str, ...]) -> None:
    """Start an agent, set up for this one run and under a name of its own.

    Starts the daemon, tells the agent's hooks and server what the session is called, and hands over
    to the command. A host that `claudemesh install` has set up is started as it is; Claude Code that
    is not set up gets our server and hooks on its command line, opencode our server and plugin in its
    environment. With --json, prints the command that it would run.
    """
    require_words(label, tags)
    if mesh:
        verb.ask("peers", mesh=mesh)  # where there is no such mesh it says so; the agent's hooks could not
    words, environment = list(command), _environment(verb, label, tags, mesh)
    place = Place.of_environment("user")
    program = shutil.which(words[0])
    if program is None:
        raise UsageError("usage", f"there is no program {words[0]!r} on the PATH")
    name = HOST_OF_PROGRAM.get(Path(words[0]).name)
    if name is not None:
        words, given = host_of(name).started_with(place, words)
        environment |= given
    if verb.as_json:
        verb.write_json({"command": [program, *words[1:]], "environment": environment})
        return
    verb.ask("daemon.status")
    _become(program, words, environment)


def _environment(verb: Verb, label: str, tags: tuple[str, ...], mesh: str) -> Object:
    given = {"CLAUDEMESH_LABEL": label, "CLAUDEMESH_TAGS": ",".join(tags), "CLAUDEMESH_MESH": mesh}
    return {name: value for name, value in given.items() if value} | {"CLAUDEMESH_CONFIG_DIR": str(verb.config.path)}


def _become(program: str, words: list[str], environment: Object) -> NoReturn:
    surroundings = os.environ | environment
    if sys.platform == "win32":  # exec there returns to the shell while the program still runs
        sys.exit(subprocess.call([program, *words[1:]], env=surroundings))
    sys.stdout.flush()
    os.execve(program, words, surroundings)
