"""Insert many rows in one statement.

Python gives up the interpreter lock around every step of a statement and waits for it again afterwards. While the
event loop is busy that wait is up to its switch interval, so a batch row by row takes seconds, and in one
statement milliseconds (docs/adr/0007 has the figures).
"""

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

MAX_ROWS: Final = 512
_ROWS: Final = ":rows"


class ManyRows:
    """A statement over `(VALUES :rows)` with `width` columns, prepared for each power of two of rows.

    Rows that are missing to the power of two are null, so the statement leaves out rows whose first column is.
    """

    def __init__(self, sql: str, width: int) -> None:
        self._sql = sql
        self._row = "(" + ",".join("?" * width) + ")"
        self._padding = (None,) * width
        self._sized: dict[int, str] = {}

    def execute(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> int:
        """Run the statement over `rows`; returns how many rows it changed."""
        changed = 0
        for start in range(0, len(rows), MAX_ROWS):
            part = rows[start : start + MAX_ROWS]
            size = 1 << (len(part) - 1).bit_length()
            values = list(chain.from_iterable(part))
            values.extend(self._padding * (size - len(part)))
            changed += connection.execute(self._text(size), values).rowcount
        return changed

    def _text(self, size: int) -> str:
        text = self._sized.get(size)
        if text is None:
            text = self._sized[size] = self._sql.replace(_ROWS, ",".join([self._row] * size))
        return text
