"""`claudemesh invite`: make, list and revoke invite links."""

from collections.abc import Iterator

import click

from claudemesh.cli.durations import Duration
from claudemesh.cli.output import clock, fingerprint, table
from claudemesh.cli.qr import check_qr_target, show_qr
from claudemesh.cli.roster import rotated_lines
from claudemesh.cli.verb import Verb, mesh_option, verb
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import visible

_WEEK_MS = 7 * 86_400_000


@click.group(
    invoke_without_command=True,
    epilog="Example: claudemesh invite --uses 3 --expires 2d",
)
@click.option("--uses", default=1, type=click.IntRange(1, 1_000), show_default=True, help="How many may join by it.")
@click.option("--expires", default=_WEEK_MS, type=Duration(), metavar="TIME", help="How long it works; 7d by default.")
@click.option(
    "--for",
    "person",
    default="",
    metavar="NAME",
    help="A personal link, for one person, who joins as NAME unless they choose another.",
)
@click.option("--qr", is_flag=False, flag_value="-", default="", metavar="[FILE]", help="Draw it; or a .png or .svg.")
@mesh_option
@verb
@click.pass_context
def invite(ctx: click.Context, verb: Verb, uses: int, expires: int, person: str, qr: str, mesh: str) -> None:
    """Make an invite link; list and revoke invites.

    The link is a secret: whoever has it can join while it lasts, even when you are offline. It
    decrypts nothing by itself, and every use shows in the roster.
    """
    if ctx.invoked_subcommand is not None:
        return
    check_qr_target(qr)
    answer = verb.ask("invite.create", mesh=mesh, uses=uses, expires_in_ms=expires, person=person)
    verb.answer(answer, link_lines)
    show_qr(answer["link"], qr, verb)


@invite.command("list", epilog="Example: claudemesh invite list --mesh team")
@mesh_option
@verb
def list_invites(verb: Verb, mesh: str) -> None:
    """List the invites of a mesh: who made them, how often they were used."""
    verb.answer(verb.ask("invite.list", mesh=mesh), _listed)


@invite.command(epilog="Example: claudemesh invite revoke 3f9a02c7 --with-members")
@click.argument("invite_id", metavar="ID")
@click.option("--with-members", is_flag=True, help="The link leaked: also remove everybody who joined by it.")
@mesh_option
@verb
def revoke(verb: Verb, invite_id: str, with_members: bool, mesh: str) -> None:
    """Revoke an invite: its link is dead for every peer. Those who joined by it stay, without --with-members."""
    verb.answer(verb.ask("invite.revoke", mesh=mesh, invite=invite_id, with_members=with_members), _revoked)


def link_lines(answer: Object) -> Iterator[str]:
    """A new link, with what its reader runs."""
    times = "once" if answer["uses"] == 1 else f"{answer['uses']} times"
    yield f"claudemesh join {answer['link']}"
    yield f"  works {times}, until {clock(answer['expires_at'])}; invite {answer['id'][:8]}. Pass it on in private."


def _listed(answer: Object) -> list[str]:
    if not answer["invites"]:
        return [f"no invites in {visible(answer['mesh'])}"]
    rows = [
        (
            one["id"][:8],
            one["kind"],
            one["state"],
            f"{one['used']}/{one['uses']}",
            clock(one["expires_at"]),
            one["issuer"],
        )
        for one in answer["invites"]
    ]
    return table(("ID", "KIND", "STATE", "USED", "EXPIRES", "BY"), rows)


def _revoked(answer: Object) -> Iterator[str]:
    yield f"revoked {answer['id'][:8]} in {visible(answer['mesh'])}"
    for peer in answer["removed"]:
        yield f"  removed {visible(peer['address'])}  key {fingerprint(peer['key'])}"
    for peer in answer["kept"]:
        yield f"  kept {visible(peer['address'])}: only an owner removes it"
    if answer["removed"]:
        yield from rotated_lines(answer["rotated"])
