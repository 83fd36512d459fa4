"""`claudemesh mcp`: the process that a host starts for a session, which `python -m claudemesh` runs without click.

`claudemesh mcp http` serves the same to clients that speak HTTP.
"""

import json

import click

from claudemesh.cli.verb import Verb, verb
from claudemesh.errors import UsageError

_HTTP_EXAMPLES = """\b
Examples:
  claudemesh mcp http
  claudemesh mcp http --client ide --client container
  claudemesh mcp http --listen 172.17.0.1:7910 --allow-remote --allow-host host.docker.internal:7910
"""


@click.group(invoke_without_command=True, epilog="Example: claude mcp add claudemesh -- claudemesh mcp")
@click.option("--host", default="", metavar="NAME", help="The host, such as codex; else found out.")
@click.option("--label", default="", metavar="LABEL", help="How others address it; else the directory's name.")
@click.option("--mesh", default="", metavar="MESH", help="Speak in this mesh only.")
@click.option("--tag", "tags", multiple=True, metavar="K=V", help="Of the session: `send tag:K=V` reaches it.")
@click.option("--peers-as-tools", is_flag=True, help="Also offer each peer that was granted `ask` as a tool, ask_NAME.")
@click.pass_context
def mcp(context: click.Context, host: str, label: str, mesh: str, tags: tuple[str, ...], peers_as_tools: bool) -> None:
    """Serve MCP to an agent on standard input and output; hosts start it.

    `claudemesh install` sets them up. It carries lines to the daemon, which is started
    when it does not run.
    """
    if context.invoked_subcommand is not None:
        if host or label or mesh or tags or peers_as_tools:
            raise UsageError("usage", "put options behind the word http: it has its own")
        return
    from claudemesh.mcp.pump import main

    words = ["--host", host, "--label", label, "--mesh", mesh]
    words += [word for tag in tags for word in ("--tag", tag)] + ["--peers-as-tools"] * peers_as_tools
    exit_code = main(words)
    if exit_code is None:
        raise UsageError("usage", "these options cannot be read")
    context.exit(exit_code)


@mcp.command("http", epilog=_HTTP_EXAMPLES)
@click.option("--listen", default="127.0.0.1:7910", show_default=True, metavar="HOST:PORT", help="TCP address.")
@click.option(
    "--client",
    "clients",
    multiple=True,
    metavar="NAME",
    help="Who may use it, each with a token of its own; repeatable.  [default: agent]",
)
@click.option("--label", default="", metavar="LABEL", help="How others address it; else what its client is called.")
@click.option("--mesh", default="", metavar="MESH", help="Speak in this mesh only.")
@click.option("--tag", "tags", multiple=True, metavar="K=V", help="Of every session: `send tag:K=V` reaches it.")
@click.option("--peers-as-tools", is_flag=True, help="Also offer each peer that was granted `ask` as a tool, ask_NAME.")
@click.option("--allow-remote", is_flag=True, help="Listen where other machines can connect. Put TLS in front of it.")
@click.option(
    "--allow-host",
    "allowed_hosts",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Answer for this name, too: what clients dial that come through a proxy or from a container; repeatable.",
)
@verb
def http(
    verb: Verb,
    listen: str,
    clients: tuple[str, ...],
    label: str,
    mesh: str,
    tags: tuple[str, ...],
    peers_as_tools: bool,
    allow_remote: bool,
    allowed_hosts: tuple[str, ...],
) -> None:
    """Serve MCP over streamable HTTP, to clients that start no process: a container, an IDE.

    Each client sends the token in the file that is printed, as `Authorization: Bearer TOKEN`.
    In its URL it may say what is to hold for it: `/mcp?label=api&mesh=team&tag=repo%3Dapi`. It
    runs until SIGTERM or Ctrl-C, and holds no key: the daemon answers.
    """
    from claudemesh.listen import Listen
    from claudemesh.mcp.http import app  # loaded here: it takes a second
    from claudemesh.mcp.http.settings import Settings, without_repeats
    from claudemesh.mcp.options import Options

    def started(url: str, files: dict[str, str]) -> None:
        if verb.as_json:
            told = [{"client": client, "token_file": file} for client, file in files.items()]
            print(json.dumps({"url": url, "clients": told}), flush=True)
            return
        click.echo(f"MCP at {url}")
        for client, file in files.items():
            click.echo(f"{client}: its token is in {file}")

    settings = Settings(
        listen=Listen.parse(listen),
        clients=without_repeats(clients) or ("agent",),
        options=Options(label=label, mesh=mesh, tags=tags, peers_as_tools=peers_as_tools),
        allow_remote=allow_remote,
        allowed_hosts=allowed_hosts,
    )
    app.run(verb.config, settings, verb.progress, started)
