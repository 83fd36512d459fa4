"""`claudemesh device link`: another device of the same user."""

import click

from claudemesh.cli.durations import Duration
from claudemesh.cli.invite import link_lines
from claudemesh.cli.qr import check_qr_target, show_qr
from claudemesh.cli.verb import Verb, mesh_option, verb

_HOUR_MS = 3_600_000


@click.group(epilog="Example: claudemesh device link --qr")
def device() -> None:
    """Link another device of yours."""


@device.command(epilog="Example: claudemesh device link --qr")
@click.option(
    "--uses", default=1, type=click.IntRange(1, 5), show_default=True, help="How many devices may join by it."
)
@click.option("--expires", default=_HOUR_MS, type=Duration(), metavar="TIME", help="How long it works; 1h by default.")
@click.option("--qr", is_flag=False, flag_value="-", default="", metavar="[FILE]", help="Draw it; or a .png or .svg.")
@mesh_option
@verb
def link(verb: Verb, uses: int, expires: int, qr: str, mesh: str) -> None:
    """Make a link by which another device of yours joins, as you.

    It becomes a peer of its own, with keys of its own, under your identity.
    """
    check_qr_target(qr)
    answer = verb.ask("device.link", mesh=mesh, uses=uses, expires_in_ms=expires)
    verb.answer(answer, link_lines)
    show_qr(answer["link"], qr, verb)
