"""Every row of the attack table has a test that bears its id, and README.md tells the truth about it."""

import ast
import re
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
README: Final = FOLDER / "README.md"

DIRECT_MESSAGES: Final = (
    *(f"A{number:02}" for number in range(1, 10)),
    *(f"A{number:02}" for number in range(11, 21)),
    *("A22", "A23", "A25", "A26", "A27", "A29", "A30", "A31", "A32", "A33", "A37", "A38"),
    *("A41", "A42", "A44", "A45", "A46", "A47"),
    *("N01", "N02", "N03", "N04", "N05", "N06", "N08"),
)
"""The rows that are tested here."""
CHANNELS: Final = ("A10", "A21", "A24", "A28", "A34", "A35", "A36", "A39", "A40", "A43", "A48")
"""The rows that need channels or files, and come with them."""
LATER: Final = ("N07", "N09", "N10", "N11", "N12")
"""The rows that need several broker nodes, federation or gateways, and come with them."""

_NAME: Final = re.compile(r"test_((?:[an]\d\d_)+)")
_ROW: Final = re.compile(r"\| (?P<row>[AN]\d\d) \| (?P<attack>[^|]+) \| (?P<tests>[^|]+) \| (?P<expected>[^|]+) \|")


def rows_tested() -> dict[str, set[str]]:
    """The tests of this folder, by the row ids in their names."""
    found: dict[str, set[str]] = {}
    for file in FOLDER.glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (match := _NAME.match(node.name)):
                for row in match[1].strip("_").upper().split("_"):
                    found.setdefault(row, set()).add(node.name)
                    assert row in (ast.get_docstring(node) or ""), f"{node.name} does not name {row} in its docstring"
    return found


def table() -> dict[str, set[str]]:
    """The tests that README.md names, by row."""
    rows = {match["row"]: match["tests"] for match in _ROW.finditer(README.read_text(encoding="utf-8"))}
    return {row: set(re.findall(r"`(test_\w+)`", tests)) for row, tests in rows.items()}


def test_every_row_is_tested_or_named_as_coming_later() -> None:
    """Nothing of A01–A48 and N01–N12 is forgotten, and nothing is in two lists."""
    every = {f"A{number:02}" for number in range(1, 49)} | {f"N{number:02}" for number in range(1, 13)}

    assert sorted((*DIRECT_MESSAGES, *CHANNELS, *LATER)) == sorted(every)
    assert set(DIRECT_MESSAGES) <= set(rows_tested())


def test_the_readme_names_every_test_of_every_row() -> None:
    """No test is missing from the table, and none in it is gone."""
    assert table() == {row: tests for row, tests in rows_tested().items() if row in DIRECT_MESSAGES}
