"""docs/spec/limits.md says what the code does: every constant and every limit of a broker, with its value."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from claudemesh.broker.policy import Limits
from claudemesh.protocol import limits

PAGE = (Path(__file__).parents[2] / "docs" / "spec" / "limits.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `([A-Za-z_0-9]+)` \| ([^|]+) \|", PAGE, re.MULTILINE))
UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000}
UNITS["d"] = 86_400_000

CONSTANTS = {
    name: value
    for name, value in vars(limits).items()
    if name.isupper() and name not in ("SECOND_MS", "MINUTE_MS", "HOUR_MS", "DAY_MS")
}
GRANTS = {field.name: getattr(Limits(), field.name) for field in fields(Limits)}


def number(text: str) -> int:
    """A value of the page, such as `256 KiB`."""
    match = re.fullmatch(r"([\d,]+)(?: (\S+))?", text.strip())
    assert match is not None, text
    return int(match[1].replace(",", "")) * UNITS[match[2] or ""]


@pytest.mark.parametrize(("name", "value"), [*CONSTANTS.items(), *GRANTS.items()])
def test_every_limit_has_a_row_with_its_value(name: str, value: int) -> None:
    assert name in ROWS, f"{name} is not documented"
    assert number(ROWS[name]) == value


def test_every_row_is_a_limit() -> None:
    assert set(ROWS) == set(CONSTANTS) | set(GRANTS)
