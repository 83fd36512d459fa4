"""`claudemesh mcp`: the process that a host starts for a session. `python -m claudemesh` runs it without click."""

import click

from claudemesh.errors import UsageError


@click.command(epilog="Example: claude mcp add claudemesh -- claudemesh mcp")
@click.option("--host", default="", metavar="NAME", help="The host, such as codex; else found out.")
@click.option("--label", default="", metavar="LABEL", help="How others address it; else the directory's name.")
@click.option("--mesh", default="", metavar="MESH", help="Speak in this mesh only.")
@click.option("--tag", "tags", multiple=True, metavar="K=V", help="Of the session: `send tag:K=V` reaches it.")
@click.option("--peers-as-tools", is_flag=True, help="Also offer each peer that was granted `ask` as a tool, ask_NAME.")
def mcp(host: str, label: str, mesh: str, tags: tuple[str, ...], peers_as_tools: bool) -> None:
    """Serve MCP to an agent on standard input and output; hosts start it.

    `claudemesh install` sets them up. It carries lines to the daemon, which is started
    when it does not run.
    """
    from claudemesh.mcp.pump import main

    words = ["--host", host, "--label", label, "--mesh", mesh]
    words += [word for tag in tags for word in ("--tag", tag)] + ["--peers-as-tools"] * peers_as_tools
    exit_code = main(words)
    if exit_code is None:
        raise UsageError("usage", "these options cannot be read")
    click.get_current_context().exit(exit_code)
