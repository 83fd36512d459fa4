"""`claudemesh send`: one message, and how far it came."""

import sys
from typing import cast

import click

from claudemesh.cli.authorship import author
from claudemesh.cli.completing import complete_peer
from claudemesh.cli.durations import Duration
from claudemesh.cli.output import now_ms
from claudemesh.cli.verb import Verb, mesh_option, verb
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.wording import progress
from claudemesh.errors import UsageError
from claudemesh.types import Priority

_MAX_TEXT_BYTES = 512 << 10
_MINUTE_MS = 60_000
_PRIORITY = "`now` interrupts a busy session, `next` waits for the end of its turn, `low` wakes nobody."
_TAG = "tag:"
_EXIT_CODES = {"refused": 5, "expired": 6}


@click.command(
    epilog="""\b
Examples: claudemesh send bob.desktop "the build is green" --wait replied --timeout 5m
          claudemesh send '#deploys' "v1 is out"
          claudemesh send tag:repo=billing "who can look at 12?"
"""
)
@click.argument("to", shell_complete=complete_peer)
@click.argument("text")
@click.option(
    "--priority", type=click.Choice(["now", "next", "low"]), default="next", show_default=True, help=_PRIORITY
)
@click.option("--reply-to", default="", metavar="ID", help="The message that this one answers.")
@click.option("--wait", type=click.Choice(["accepted", "delivered", "read", "replied"]), help="Wait for this stage.")
@click.option(
    "--timeout", type=Duration(), default=_MINUTE_MS, metavar="TIME", help="How long to wait; 60s by default."
)
@click.option("--expires", type=Duration(), default=0, metavar="TIME", help="Drop it after this; 14d by default.")
@click.option("--all", "everyone", is_flag=True, help="To a tag: every session that carries it, not only one.")
@click.option(
    "--intent", type=click.Choice(["request", "inform", "ack"]), help="What it is for; an `ack` wakes nobody."
)
@click.option("--allow-secret", is_flag=True, help="Send it although it looks like it holds a credential.")
@click.option("--as", "session", default="", metavar="LABEL", help="Send as the session that `watch` opened here.")
@mesh_option
@verb
def send(
    verb: Verb,
    to: str,
    text: str,
    priority: str,
    reply_to: str,
    wait: str | None,
    timeout: int,
    expires: int,
    everyone: bool,
    intent: str | None,
    allow_secret: bool,
    session: str,
    mesh: str,
) -> None:
    """Send a message and say how far it came.

    TO is a person, peer, session or key; '#channel', in quotes, since a shell takes # for a comment;
    @group; or tag:K=V, which goes to one session that carries the tag, an idle one first, and with
    --all to each of them. TEXT is the message, or `-` to read it from standard input.

    The stage that is printed is the one reached: `queued` is durable here, `accepted` at the broker;
    later ones are signed by the recipient (`claudemesh message ID`).

    A text that looks like it holds a credential is not sent. What is typed at a terminal counts as
    yours; what an agent's shell sends, and any other reply, as an agent's: too much of that waits for a
    person (`claudemesh hold`).
    """
    if everyone and not to.strip().startswith(_TAG):
        raise click.UsageError("--all is for a tag: an address or a channel reaches everybody that it stands for.")
    body = _from_input() if text == "-" else _checked(text)
    if verb.session_file is not None:
        if wait not in (None, "accepted") or session or mesh:
            raise UsageError("usage", "a session that was handed out waits for `accepted`, in its own mesh")
        from claudemesh.daemon.restricted import send as send_restricted  # imports what only this needs

        urgency = cast(Priority, priority)
        sent = send_restricted(verb.session_file, to, body, urgency, reply_to, expires, allow_secret=allow_secret)
        verb.answer(sent, lambda one: sent_lines(one, now_ms()))
        return
    writer = author()
    answer = verb.ask(
        "send",
        mesh=mesh,
        to=to,
        text=body,
        priority=priority,
        reply_to=reply_to,
        expires_in_ms=expires,
        reach="all" if everyone else "any",
        intent=intent or "",
        by_person=writer == "person",
        by_agent=writer == "agent",
        allow_secret=allow_secret,
        session=session,
        wait=wait or "",
        timeout_ms=timeout,
    )
    _show(verb, answer)
    click.get_current_context().exit(_EXIT_CODES.get(answer["stage"], 0))


def _show(verb: Verb, sent: Object) -> None:
    """How far it came; the replies that are shown with it are read then."""
    verb.answer(sent, lambda one: sent_lines(one, now_ms()))
    if sent["replies"]:
        from claudemesh.cli.inbox import mark_shown

        mark_shown(verb, sent["mesh"], [reply["number"] for reply in sent["replies"]])


def sent_lines(sent: Object, now: int) -> list[str]:
    """One line per recipient: how far, why no further, until when it is kept; then the replies."""
    lines = [f"{one['id']}  {progress(one, sent, now)}" for one in sent["to"]]
    for reply in sent["replies"]:
        lines += reply_lines(reply)
    return lines


def reply_lines(reply: Object) -> list[str]:
    """A message as the block in which only the body is the peer's."""
    from claudemesh.cli.inbox import block

    return block(reply).split("\n")


def _checked(text: str) -> str:
    """An argument that is not UTF-8 reaches us as lone surrogates; a message is never altered in silence."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError("usage", "the message is not UTF-8 text") from error
    return text


def _from_input() -> str:
    raw = sys.stdin.buffer.read(_MAX_TEXT_BYTES + 1)
    if len(raw) > _MAX_TEXT_BYTES:
        raise UsageError("usage", "a message is at most 512 KiB long")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise UsageError("usage", "what stands on standard input is not UTF-8 text") from error
