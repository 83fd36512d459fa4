"""`claudemesh inbox` and `watch`: messages as data, each in a block whose labels are not its sender's."""

import sys
from collections.abc import Iterable
from contextlib import suppress

import click

from claudemesh.cli.verb import Verb, verb
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import TRUST_WORDS, MessageView, render, visible

REPLY = "claudemesh send {to} --reply-to {id} TEXT"
_MOST = 10_000
_BATCH = 1_000


@click.command(epilog="Example: claudemesh inbox --all")
@click.option(
    "--unread", "which", flag_value="unread", default="unread", help="Only messages not shown yet (the default)."
)
@click.option("--all", "which", flag_value="all", help="Those that were shown before, too.")
@click.option(
    "--limit", default=100, type=click.IntRange(1, _MOST), show_default=True, help="At most so many of each mesh."
)
@click.option("--mesh", default="", metavar="MESH", help="Only this mesh.")
@click.option("--sign-read", is_flag=True, help="Sign a read receipt for each: only for what is put before a model.")
@verb
def inbox(verb: Verb, which: str, limit: int, mesh: str, sign_read: bool) -> None:
    """Show received messages.

    Each is drawn as a block whose labels are verified and whose body, behind `| `, is data from
    another agent. With --json, one {"message": …} per line and the answer as last line.
    """
    shown: dict[str, list[int]] = {}

    def show(event: Object) -> None:
        show_event(verb, event)
        shown.setdefault(event["message"]["mesh"], []).append(event["message"]["number"])

    answer = verb.follow("inbox", show, mesh=mesh, unread=which == "unread", limit=limit)
    verb.answer(answer, _end)
    for one, numbers in shown.items():
        mark_shown(verb, one, numbers, read=sign_read)


@click.command(epilog="Example: claudemesh watch --session payments-api --tag repo=payments")
@click.option(
    "--mesh", default="", metavar="MESH", help="Only this mesh; needed with --session when there are several."
)
@click.option("--session", default="", metavar="LABEL", help="Open a session, which others address as PEER/LABEL.")
@click.option(
    "--tag", "tags", multiple=True, metavar="K=V", help="Of that session, up to 16: `send tag:K=V` reaches it."
)
@click.option("--sign-read", is_flag=True, help="Sign a read receipt for each: only for what is put before a model.")
@verb
def watch(verb: Verb, mesh: str, session: str, tags: tuple[str, ...], sign_read: bool) -> None:
    """Follow messages as they arrive.

    Begins with those that are unread, and ends when it is interrupted. With --session this terminal
    is a session of its own: it is shown what is addressed to it, and `claudemesh send --as LABEL`
    speaks for it.
    """

    def show(event: Object) -> None:
        show_event(verb, event)
        if "message" in event:
            message = event["message"]
            mark_shown(verb, message["mesh"], [message["number"]], read=sign_read, session=session)

    if tags and not session:
        raise click.UsageError("--tag says what a session is good for: name one with --session.")
    with suppress(KeyboardInterrupt):
        verb.follow("watch", show, mesh=mesh, session=session, tags=list(tags))


def block(message: Object) -> str:
    """A message as a person or a model is shown it."""
    sender = message["sender"]
    view = MessageView(
        id=message["id"],
        sender=sender["address"],
        fingerprint=sender["key"][:16],
        trust=TRUST_WORDS.get(sender["trust"], sender["trust"]),
        mesh=message["mesh"],
        priority=message["priority"],
        sent_at=message["sent_at"],
        text=message["text"],
        reply_to=message["reply_to"],
        channel=message["channel"],
        missing=message["missing"],
        stale=message["stale"],
        may_repeat=message["may_repeat"],
        shared_by=message["shared_by"],
    )
    return render(view, REPLY)


def mark_shown(verb: Verb, mesh: str, numbers: list[int], *, read: bool = False, session: str = "") -> None:
    """Say that messages were written out: only afterwards, for a receipt states what happened."""
    for start in range(0, len(numbers), _BATCH):
        part = numbers[start : start + _BATCH]
        verb.ask("inbox.shown", mesh=mesh, numbers=part, read=read, session=session)


def show_event(verb: Verb, event: Object) -> None:
    """Write out a message, or what else a reader has to know."""
    if verb.as_json:
        verb.write_json(event)
    elif "message" in event:
        click.echo(block(event["message"]) + "\n")
    elif "gap" in event:
        gap = event["gap"]
        place = f" in {visible(gap['channel'])}" if gap["channel"] else ""
        click.echo(f"{gap['missing']} messages from {visible(gap['address'])}{place} are missing so far", err=True)
    elif "held" in event:
        held = event["held"]
        address, reason = visible(held["address"]), visible(held["reason"])
        click.echo(f"a message from {address} is held for you ({reason}); see claudemesh hold list", err=True)
    elif "watching" in event:
        click.echo(f"watching as {visible(event['watching']['address'])}", err=True)
    sys.stdout.flush()


def _end(answer: Object) -> Iterable[str]:
    if answer["more"]:
        yield "there are more; see --limit"
    elif not answer["count"]:
        yield "no unread messages; --all shows the others"
