"""`claudemesh completion`: the script that makes a shell complete our commands and names."""

import click
from click.shell_completion import get_completion_class

from claudemesh.cli.verb import Verb, verb

SHELLS = ("bash", "zsh", "fish")


@click.command(epilog='Example: eval "$(claudemesh completion bash)"')
@click.argument("shell", type=click.Choice(SHELLS))
@verb
def completion(verb: Verb, shell: str) -> None:
    """Print the completion script of a shell.

    Bash and zsh: eval "$(claudemesh completion SHELL)" in the shell's start file. Fish: write it to
    ~/.config/fish/completions/claudemesh.fish.
    """
    script_class = get_completion_class(shell)
    assert script_class is not None
    root = click.get_current_context().find_root().command
    script = script_class(root, {}, "claudemesh", "_CLAUDEMESH_COMPLETE").source()
    verb.answer({"shell": shell, "script": script}, lambda answer: [answer["script"]])
