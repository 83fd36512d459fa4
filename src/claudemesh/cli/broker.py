"""`claudemesh broker`: run a broker in the foreground; bring its database up to date."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from claudemesh.errors import ClaudemeshError

_EXAMPLES = """\b
Examples:
  claudemesh broker
  claudemesh broker --listen 0.0.0.0:7900 --origin wss://mesh.example.org/ws \\
      --database sqlite:////var/lib/claudemesh/broker.db
  claudemesh broker --unix /run/claudemesh/broker.sock --limit mailbox_rows=50000
  claudemesh broker --listen 0.0.0.0:7900 --origin wss://mesh.example.org/ws --key /etc/claudemesh/broker.key \\
      --database postgresql://claudemesh@db/claudemesh --bus nats://nats:4222
  claudemesh broker --otlp http://127.0.0.1:4318
"""


_MIGRATE_EXAMPLES = """\b
Examples:
  claudemesh broker migrate --dry-run --database postgresql://claudemesh@db/claudemesh
  claudemesh broker migrate --database postgresql://claudemesh@db/claudemesh
"""


@click.group(invoke_without_command=True, epilog=_EXAMPLES)
@click.option("--listen", metavar="HOST:PORT", help="TCP address.  [default: 127.0.0.1:7900, unless --unix is given]")
@click.option("--unix", type=click.Path(path_type=Path), metavar="PATH", help="Unix socket (mode 0600).")
@click.option(
    "--database",
    default="sqlite:///claudemesh-broker.db",
    show_default=True,
    help="sqlite:///FILE, created if missing; or postgresql://USER@HOST/NAME.",
)
@click.option(
    "--bus",
    envvar="CLAUDEMESH_BUS",
    metavar="URL",
    help="nats://HOST:PORT: run as one of several nodes that share a PostgreSQL database and a --key. One with a"
    " password belongs in the environment.  [env: CLAUDEMESH_BUS]",
)
@click.option("--key", type=click.Path(path_type=Path), metavar="FILE", help="Signing key.  [default: DATABASE.key]")
@click.option(
    "--origin",
    "origins",
    multiple=True,
    metavar="URL",
    help="URL that peers dial, such as wss://host/ws; repeatable. Required when others than this machine can connect.",
)
@click.option(
    "--mesh-creation",
    type=click.Choice(["open", "closed"]),
    default="open",
    show_default=True,
    help="Whether anybody may create or move a mesh here.",
)
@click.option(
    "--limit",
    "overrides",
    multiple=True,
    metavar="NAME=NUMBER",
    help="Override a limit of docs/spec/limits.md; repeatable.",
)
@click.option(
    "--otlp",
    envvar="OTEL_EXPORTER_OTLP_ENDPOINT",
    metavar="URL",
    help="Send traces to an OpenTelemetry collector, such as http://127.0.0.1:4318; needs claudemesh[otel]."
    "  [env: OTEL_EXPORTER_OTLP_ENDPOINT]",
)
@click.option(
    "--trust-forwarded-for", is_flag=True, help="Count addresses by X-Forwarded-For: only behind a proxy that sets it."
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="How much is logged.",
)
@click.option("--log-file", type=click.Path(path_type=Path), metavar="FILE", help="[default: standard error]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output once it listens.")
@click.pass_context
def broker(
    ctx: click.Context,
    listen: str | None,
    unix: Path | None,
    database: str,
    bus: str | None,
    key: Path | None,
    origins: tuple[str, ...],
    mesh_creation: str,
    overrides: tuple[str, ...],
    otlp: str | None,
    trust_forwarded_for: bool,
    log_level: str,
    log_file: Path | None,
    as_json: bool,
) -> None:
    """Run a broker: it routes ciphertext and orders rosters, and can read neither.

    It stops on SIGTERM or Ctrl-C: links are told to reconnect, nothing that was accepted is lost.
    """
    if ctx.invoked_subcommand is not None:
        return
    from claudemesh.broker import app  # loaded here, so that other verbs and --help stay quick
    from claudemesh.errors import ClaudemeshError

    def started(running: app.Broker) -> None:
        if as_json:
            print(json.dumps({"broker": running.id, "url": running.url, "port": running.port}), flush=True)
        else:
            print(f"broker {running.id[:16]} at {running.url}", file=sys.stderr, flush=True)

    if listen is None and unix is None:
        listen = f"127.0.0.1:{app.DEFAULT_PORT}"
    try:
        settings = app.Settings(
            listen=None if listen is None else app.Listen.parse(listen),
            unix=None if unix is None else unix.absolute(),
            database=app.parse_database(database),
            key=key,
            bus=bus,
            origins=origins,
            mesh_creation="closed" if mesh_creation == "closed" else "open",
            trust_forwarded_for=trust_forwarded_for,
            limits=app.Limits().override(overrides),
            log_level=log_level,  # type: ignore[arg-type]  # click has checked it
            log_file=log_file,
            otlp=otlp,
        )
        app.run(settings, started)
    except ClaudemeshError as error:
        _fail("claudemesh broker", error)


@broker.command(epilog=_MIGRATE_EXAMPLES)
@click.option(
    "--database",
    default="sqlite:///claudemesh-broker.db",
    show_default=True,
    help="sqlite:///FILE or postgresql://USER@HOST/NAME.",
)
@click.option("--dry-run", is_flag=True, help="Say what is missing, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def migrate(database: str, dry_run: bool, as_json: bool) -> None:
    """Bring the schema of a broker's database up to date.

    A broker does so itself when it starts; this is for those who want it done, or seen, before. Steps
    only add to a PostgreSQL schema: brokers of the version before go on beside them. A broker
    refuses a database that a newer version has migrated.
    """
    import asyncio  # loaded here, as above

    from claudemesh.broker import app
    from claudemesh.broker.store import schema
    from claudemesh.errors import ClaudemeshError

    applied: list[str] = []

    def note(step: str) -> None:
        applied.append(step)
        click.echo(f"applied {step}", err=True)

    try:
        where = app.parse_database(database)
        found = asyncio.run(schema.look(where) if dry_run else schema.migrate(where, note))
    except ClaudemeshError as error:
        _fail("claudemesh broker migrate", error)
    if as_json:
        answer = {"database": str(where), "schema": found.version, "known": found.known, "applied": applied}
        print(json.dumps(answer | {"missing": list(found.missing)}))
        return
    for step in found.missing:
        print(f"missing {step}")
    print(f"schema {found.version} of {found.known} in {where}")


def _fail(command: str, error: "ClaudemeshError") -> NoReturn:
    click.echo(f"{command}: {error}\n{error.hint()}", err=True)
    sys.exit(error.exit_code)
