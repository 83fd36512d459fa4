"""The rows of the attack table and the tests that bear their ids; run as a module, it brings README.md up to date."""

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
    *("N01", "N02", "N03", "N04", "N05", "N06", "N07", "N08", "N09", "N11"),
)
"""The rows that direct messages, membership and the processes are answerable for."""
CHANNELS: Final = ("A10", "A21", "A24", "A28", "A34", "A35", "A36", "A39", "A40", "A48")
"""The rows that channels are answerable for."""
LATER: Final = ("A43", "N10", "N12")
"""The rows that come with files, federation and gateways."""

_NAME: Final = re.compile(r"test_((?:[an]\d\d_)+)")
_ROW: Final = re.compile(r"\| (?P<row>[AN]\d\d) \| (?P<attack>[^|]+) \| (?P<tests>[^|]*) \| (?P<expected>[^|]+) \|")


def tested() -> dict[str, set[str]]:
    """The tests of this folder, by the row ids in their names."""
    found: dict[str, set[str]] = {}
    for name in docstrings():
        for row in rows_of(name):
            found.setdefault(row, set()).add(name)
    return found


def docstrings() -> dict[str, str]:
    """Every test of this folder that bears a row's id, with its docstring."""
    nodes = [
        node
        for file in sorted(FOLDER.glob("test_*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {node.name: ast.get_docstring(node) or "" for node in nodes if rows_of(node.name)}


def rows_of(name: str) -> list[str]:
    """The row ids in a test's name."""
    match = _NAME.match(name)
    return match[1].strip("_").upper().split("_") if match else []


def documented() -> dict[str, set[str]]:
    """The tests that README.md names, by row."""
    rows = {match["row"]: match["tests"] for match in _ROW.finditer(README.read_text(encoding="utf-8"))}
    return {row: set(re.findall(r"`(test_\w+)`", tests)) for row, tests in rows.items()}


def rewrite() -> None:
    """Name the tests as they are now; a row that is new gets a line whose words a person has to find."""
    text, found = README.read_text(encoding="utf-8"), tested()
    lines = {match["row"]: (match["attack"], match["expected"]) for match in _ROW.finditer(text)}
    table = "".join(_line(row, *lines.get(row, ("?", "?")), found[row]) for row in sorted(found))
    first = text.index("| A01 ")
    last = text.rindex(" |\n") + 3
    README.write_text(text[:first] + table + text[last:], encoding="utf-8")


def _line(row: str, attack: str, expected: str, tests: set[str]) -> str:
    return f"| {row} | {attack} | {', '.join(f'`{test}`' for test in sorted(tests))} | {expected} |\n"


if __name__ == "__main__":
    rewrite()
