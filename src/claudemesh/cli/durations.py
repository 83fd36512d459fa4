"""Lengths of time as people write them on a command line: `90s`, `15m`, `36h`, `7d`."""

import re
from typing import Any, Final

import click

_UNITS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_FORM: Final = re.compile(r"([0-9]{1,9})\s*(ms|s|m|h|d|w)\Z")


class Duration(click.ParamType[int]):
    """A click type: the length in milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        length_ms = parse_duration(str(value))
        if length_ms is None:
            self.fail(f"{value!r} is not a length of time such as 90s, 15m, 36h or 7d.", param, ctx)
        return length_ms


def parse_duration(text: str) -> int | None:
    """Milliseconds, or None when it is not a duration: a bare number has no unit and is refused."""
    match = _FORM.match(text.strip().lower())
    return int(match[1]) * _UNITS[match[2]] if match else None
