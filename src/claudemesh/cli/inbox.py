"""`claudemesh inbox` and `watch`: messages as data, each in a block whose labels are not its sender's."""

import sys
from collections.abc import Iterable
from contextlib import suppress

import click

from claudemesh.cli.verb import Verb, verb
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import MessageView, render, visible

REPLY = "claudemesh send {to} --reply-to {id} TEXT"
_ALL = 10_000


@click.command(epilog="Example: claudemesh inbox --all")
@click.option(
    "--unread", "which", flag_value="unread", default="unread", help="Only messages not shown yet (the default)."
)
@click.option("--all", "which", flag_value="all", help="Those that were shown before, too.")
@click.option(
    "--limit", default=100, type=click.IntRange(1, _ALL), show_default=True, help="At most so many, the newest."
)
@click.option("--mesh", default="", metavar="MESH", help="Only this mesh.")
@click.option("--sign-read", is_flag=True, help="Sign a read receipt for each: only for what is put before a model.")
@verb
def inbox(verb: Verb, which: str, limit: int, mesh: str, sign_read: bool) -> None:
    """Show received messages.

    Each is drawn as a block whose labels are verified and whose body, behind `| `, is data from
    another agent. With --json, one {"message": …} per line and the answer as last line.
    """
    shown: list[str] = []

    def show(event: Object) -> None:
        _show(verb, event)
        shown.append(event["message"]["id"])

    answer = verb.follow("inbox", show, mesh=mesh, unread=which == "unread", limit=limit)
    verb.answer(answer, _end)
    _mark_shown(verb, shown, sign_read)


@click.command(epilog="Example: claudemesh watch --session payments-api")
@click.option(
    "--mesh", default="", metavar="MESH", help="Only this mesh; needed with --session when there are several."
)
@click.option("--session", default="", metavar="LABEL", help="Open a session, which others address as PEER/LABEL.")
@click.option("--sign-read", is_flag=True, help="Sign a read receipt for each: only for what is put before a model.")
@verb
def watch(verb: Verb, mesh: str, session: str, sign_read: bool) -> None:
    """Follow messages as they arrive, from the unread ones on, until interrupted.

    With --session this terminal is a session of its own: it is shown what is addressed to it, and
    `claudemesh send --as LABEL` speaks for it.
    """

    def show(event: Object) -> None:
        _show(verb, event)
        if "message" in event:
            _mark_shown(verb, [event["message"]["id"]], sign_read)

    with suppress(KeyboardInterrupt):
        verb.follow("watch", show, mesh=mesh, session=session)


def block(message: Object) -> str:
    """A message as a person or a model is shown it."""
    sender = message["sender"]
    view = MessageView(
        id=message["id"],
        sender=sender["address"],
        fingerprint=sender["key"][:16],
        trust=sender["trust"],
        mesh=message["mesh"],
        priority=message["priority"],
        sent_at=message["sent_at"],
        text=message["text"],
        reply_to=message["reply_to"],
    )
    return render(view, REPLY)


def _show(verb: Verb, event: Object) -> None:
    if verb.as_json:
        verb.write_json(event)
    elif "message" in event:
        if event["message"]["gap"]:
            click.echo(f"({event['message']['gap']} messages of this session are missing before the next one)")
        click.echo(block(event["message"]) + "\n")
    elif "watching" in event:
        click.echo(f"watching as {visible(event['watching']['address'])}", err=True)
    sys.stdout.flush()


def _mark_shown(verb: Verb, ids: list[str], read: bool) -> None:
    """Only after everything was written out: a receipt states what happened, not what is about to."""
    for start in range(0, len(ids), 1_000):
        verb.ask("inbox.shown", ids=ids[start : start + 1_000], read=read)


def _end(answer: Object) -> Iterable[str]:
    if answer["more"]:
        yield f"{answer['more']} older messages are left out; see --limit"
    elif not answer["count"]:
        yield "no unread messages; --all shows the others"
