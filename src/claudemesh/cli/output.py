"""Text for a person: tables, times, colours. Every cell is shown as data, because a peer may have chosen it."""

import os
import sys
import time
from collections.abc import Sequence

import click

from claudemesh.daemon.rendering import visible
from claudemesh.daemon.wording import ago, span, until

__all__ = [
    "ago",
    "bad",
    "clock",
    "fingerprint",
    "good",
    "now_ms",
    "span",
    "styled",
    "table",
    "until",
]


def now_ms() -> int:
    """This machine's clock, in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def clock(at: int) -> str:
    """A moment to the second, local time; empty for 0."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at / 1000)) if at else ""


def fingerprint(key: str) -> str:
    """The beginning of a key in groups of four digits, for a person to compare."""
    return " ".join(key[index : index + 4] for index in range(0, 16, 4))


def good(text: str) -> str:
    return styled(text, "green")


def bad(text: str) -> str:
    return styled(text, "red")


def styled(text: str, colour: str) -> str:
    """`text` in a colour where somebody sees it and has not asked for none (NO_COLOR)."""
    return click.style(text, fg=colour) if _draws() else text


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows under headings: drawn by rich on a terminal, as aligned columns everywhere else."""
    cells = [[visible(cell) for cell in row] for row in rows]
    if _draws():
        return _drawn(headings, cells)
    widths = [max(len(row[column]) for row in [list(headings), *cells]) for column in range(len(headings))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [list(headings), *cells]
    ]


def _drawn(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        drawn.add_column(heading, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    console = Console(highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(drawn)
    return captured.get().rstrip("\n").split("\n")


def _draws() -> bool:
    """Whether somebody looks, at something that draws, who has not asked for plain text."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
