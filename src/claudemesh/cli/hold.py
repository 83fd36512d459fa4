"""`claudemesh hold list|release|refuse` and `budget`: what agents may cause here before a person is asked."""

from collections.abc import Iterator

import click

from claudemesh.cli.completing import complete_peer
from claudemesh.cli.output import bad, good, table
from claudemesh.cli.verb import Verb, mesh_option, verb
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import visible

BUDGETS = ("hops", "pair", "session", "sends")
_REASONS = {
    "hops": "{reached} answers after the first message of its conversation; {allowed} need nobody",
    "revisit": "a conversation that went out from here comes back by another way",
    "repeat": "the same text was taken from this sender within ten minutes",
    "pair": "message {reached} of agents with this sender in ten minutes; {allowed} need nobody",
    "session": "message {reached} of agents to this session in ten minutes; {allowed} need nobody",
}
_MEANINGS = {
    "hops": "answers in one conversation",
    "pair": "messages with one peer in 10 minutes, both ways",
    "session": "messages that one session gets in 10 minutes",
    "sends": "messages that one session sends in 10 minutes",
}


@click.group(epilog="Example: claudemesh hold list")
def hold() -> None:
    """List, release or refuse messages of agents that wait for you.

    A conversation of agents that goes on without a person, comes back, repeats itself or is too much is
    held here, on the recipient's machine, and shown to no agent. Its sender is told that, and why.
    """


@hold.command("list", epilog="Example: claudemesh hold list")
@mesh_option
@verb
def list_(verb: Verb, mesh: str) -> None:
    """Show what waits, each with the reason."""
    verb.answer(verb.ask("hold.list", mesh=mesh), _waiting)


@hold.command(epilog="Example: claudemesh hold release 4f1c09aa")
@click.argument("ids", nargs=-1, metavar="ID…")
@click.option("--from", "sender", default="", metavar="PEER", help="Every one of this peer or user.")
@click.option("--all", "everything", is_flag=True, help="Every one.")
@mesh_option
@verb
def release(verb: Verb, ids: tuple[str, ...], sender: str, everything: bool, mesh: str) -> None:
    """Let messages in: each is shown once, like one that arrives now.

    What the agents write on from there is held again while the budget stays as it is (`claudemesh
    budget`).
    """
    answer = verb.ask("hold.release", mesh=mesh, ids=list(ids), sender=sender, everything=everything)
    verb.answer(answer, lambda one: _decided(one, good("released")))


@hold.command(epilog="Example: claudemesh hold refuse --from bob")
@click.argument("ids", nargs=-1, metavar="ID…")
@click.option("--from", "sender", default="", metavar="PEER", help="Every one of this peer or user.")
@click.option("--all", "everything", is_flag=True, help="Every one.")
@mesh_option
@verb
def refuse(verb: Verb, ids: tuple[str, ...], sender: str, everything: bool, mesh: str) -> None:
    """Drop messages for good; their senders get a signed `refused`."""
    answer = verb.ask("hold.refuse", mesh=mesh, ids=list(ids), sender=sender, everything=everything)
    verb.answer(answer, lambda one: _decided(one, bad("refused")))


@click.command(epilog="Example: claudemesh budget hops 20 --peer bob")
@click.argument("name", required=False, type=click.Choice(BUDGETS))
@click.argument("amount", required=False, type=click.IntRange(0, 100_000))
@click.option(
    "--peer", default="", metavar="PEER", shell_complete=complete_peer, help="Only for this peer or user: hops, pair."
)
@click.option("--default", "drop", is_flag=True, help="Decide nothing any more about it.")
@mesh_option
@verb
def budget(verb: Verb, name: str | None, amount: int | None, peer: str, drop: bool, mesh: str) -> None:
    """Show or change how much agents may cause here before you are asked.

    NAME is `hops` (answers in one conversation), `pair` (messages with one peer), `session` (messages
    that one session of yours gets) or `sends` (messages that it sends); the last three in ten minutes.
    What exceeds the first three is held (`claudemesh hold`), what exceeds the last is not sent.
    """
    if name is None and (amount is not None or peer or drop):
        raise click.UsageError("Name the budget: hops, pair, session or sends.")
    if name is not None and (amount is None) != drop:
        raise click.UsageError("Say how much, or --default.")
    verb.answer(verb.ask("budget", mesh=mesh, name=name or "", amount=amount, peer=peer), _budgets)


def reason_of(held: Object) -> str:
    """Why a message waits, in words, with the figures that led to it."""
    words = _REASONS.get(held["reason"], "{reached} of {allowed}")
    return f"{held['reason']}: " + words.format(reached=held["reached"], allowed=held["allowed"])


def _waiting(answer: Object) -> Iterator[str]:
    from claudemesh.cli.inbox import block

    for one in answer["held"]:
        yield bad(f"held ({visible(reason_of(one))})")
        yield block(one["message"])
        shown = len(one["message"]["text"])
        if shown < one["characters"]:
            yield f"the first {shown:,} of {one['characters']:,} characters"
        yield ""
    if answer["held"]:
        yield f"{len(answer['held']) + answer['more']} held; see claudemesh hold release --help, and refuse"
    else:
        yield "nothing is held"


def _decided(answer: Object, word: str) -> Iterator[str]:
    for one in answer["held"]:
        message = one["message"]
        yield f"{word}  {message['id']}  from {visible(message['sender']['address'])}"
    if answer["more"]:
        yield f"{word}  {answer['more']} more"
    if not answer["held"]:
        yield "nothing was held"


def _budgets(answer: Object) -> Iterator[str]:
    rows = [
        (one["name"], str(one["amount"]), one["address"] or "everybody", "" if one["decided"] else "default",
         _MEANINGS[one["name"]])
        for one in answer["budgets"]
    ]  # fmt: skip
    yield from table(("BUDGET", "AMOUNT", "FOR", "", "COUNTS"), rows)
