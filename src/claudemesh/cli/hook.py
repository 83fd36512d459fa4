"""`claudemesh hook`: what a host starts at an event; `claudemesh.__main__` answers the plain form faster."""

import os
import sys

import click


@click.command(epilog='Example: echo \'{"hook_event_name": "SessionStart", …}\' | claudemesh hook claude-code')
@click.argument("host", type=click.Choice(["claude-code", "codex", "gemini"]))
@click.option("--json", "as_json", is_flag=True, help="No difference: hosts read JSON anyway.")
def hook(host: str, as_json: bool) -> None:
    """Answer an event of a host; hosts call this, not people.

    Reads the event as JSON from standard input and writes what the host is to show its model.
    Whatever goes wrong, it writes nothing and ends with 0: a hook must not stop the user's own turn.
    """
    from claudemesh.hosts.calling import run_hook

    event = sys.stdin.buffer.read()
    click.get_current_context().exit(run_hook(host, event, os.environ))
