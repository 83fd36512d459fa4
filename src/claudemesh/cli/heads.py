"""`claudemesh mesh log`, `heads` and `trust`: the history of a roster, and what to do when there are two."""

from collections.abc import Iterator

import click

from claudemesh.cli.completing import complete_mesh
from claudemesh.cli.output import ago, bad, clock, fingerprint, now_ms, table
from claudemesh.cli.verb import Verb, verb
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import visible


@click.command(epilog="Example: claudemesh mesh log team --from 40")
@click.argument("alias", default="", shell_complete=complete_mesh)
@click.option("--from", "from_seq", default=0, type=click.IntRange(0), metavar="SEQ", help="The first entry to show.")
@verb
def log(verb: Verb, alias: str, from_seq: int) -> None:
    """Show the roster as a history: who admitted whom, by which invite.

    Every line is a signed entry that this machine has verified; the key is the author's.
    """
    verb.answer(verb.ask("mesh.log", mesh=alias, from_seq=from_seq), _logged)


@click.command(epilog="Example: claudemesh mesh heads team")
@click.argument("alias", default="", shell_complete=complete_mesh)
@verb
def heads(verb: Verb, alias: str) -> None:
    """Show which head of the roster this machine, the broker and each peer name.

    When the mesh is frozen it shows both histories that the broker signed, who is on each, and how to
    decide.
    """
    verb.answer(verb.ask("mesh.heads", mesh=alias), _heads)


@click.command(epilog="Example: claudemesh mesh trust 3f9a02c7 --mesh team")
@click.argument("head")
@click.option("--mesh", default="", metavar="MESH", shell_complete=complete_mesh, help="Which mesh, if there are more.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@verb
def trust(verb: Verb, head: str, mesh: str, yes: bool) -> None:
    """Decide for one of two histories of a frozen mesh, after comparing them with the others by voice.

    HEAD is the beginning of one of the heads that `claudemesh mesh heads` shows. The decision is
    recorded, the proof against the broker kept, and sending goes on. With a head that is not ours,
    the roster is fetched anew and must contain it.
    """
    if not yes:
        click.confirm(f"Trust {visible(head)}? Did you compare it with an owner by voice?", abort=True, err=True)
    verb.answer(verb.ask("mesh.trust", mesh=mesh, head=head), _trusted)


def _logged(answer: Object) -> list[str]:
    rows = [
        (str(one["seq"]), clock(one["at"]), one["text"], fingerprint(one["who"] or one["by"]))
        for one in answer["entries"]
    ]
    return table(("ENTRY", "AT", "WHAT", "KEY"), rows)


def _heads(answer: Object) -> Iterator[str]:
    now = now_ms()
    yield f"here      entry {answer['seq']}  {answer['head']}"
    yield f"by voice  {answer['head_number']}"
    if answer["broker_seq"] >= 0:
        yield f"broker    entry {answer['broker_seq']}  {answer['broker_head']}  signed {ago(answer['broker_at'], now)}"
    rows = [_claim(one) for one in answer["claims"]]
    if rows:
        yield from table(("PEER", "ENTRY", "HEAD", "", "SIGNED"), rows)
    if not answer["frozen"]:
        yield "the broker has not contradicted itself"
    else:
        yield from _frozen(answer, now)
    for one in answer["decisions"]:
        yield f"decided {clock(one['decided_at'])}: {one['code']}, trusted {one['trusted'][:16]}; the proof is kept"


def _claim(claim: Object) -> tuple[str, ...]:
    meaning = {"known": "same history", "ahead": "newer than ours", "conflict": "another history"}
    signed = clock(claim["signed_at"]) if claim["proven"] else "not by the broker"
    return claim["peer"]["address"], str(claim["seq"]), claim["head"][:16], meaning[claim["relation"]], signed


def _frozen(answer: Object, now: int) -> Iterator[str]:
    yield bad(f"frozen {ago(answer['frozen_at'], now)} ({answer['frozen']}): the broker signed two histories.")
    for branch in answer["branches"]:
        whose = "ours" if branch["own"] else "the other one"
        yield f"  {branch['head'][:16]}  entry {branch['seq']}, {whose}, signed by {fingerprint(branch['broker'])}"
        yield f"    by voice  {branch['head_number']}"
        if branch["authors"]:
            yield f"    written by {', '.join(map(visible, branch['authors']))}"
        if branch["followers"]:
            yield f"    named by {', '.join(map(visible, branch['followers']))}"
        if branch["suggested"]:
            yield "    an owner is on it"
    suggested = [branch["head"][:16] for branch in answer["branches"] if branch["suggested"]]
    if suggested:
        yield f"  Compare the digits by voice, then: claudemesh mesh trust {suggested[0]}"
    else:
        yield "  Ask an owner by another way which head it has, then: claudemesh mesh trust HEAD"


def _trusted(answer: Object) -> Iterator[str]:
    yield f"trusted entry {answer['seq']}, {answer['head'][:16]}, in {visible(answer['mesh'])}; the proof is kept"
    if answer["frozen"]:
        yield bad(f"  frozen again ({answer['frozen']}): the broker still shows another history; move the mesh")
    elif not answer["own"]:
        yield "  the roster was fetched anew, and contains it"
