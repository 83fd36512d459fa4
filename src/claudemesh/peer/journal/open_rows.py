"""Which rows of the outbox and of posts wait to be submitted: the most urgent and oldest first."""

import json
import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

from claudemesh.types import MeshId


class OpenRows:
    """The rows of one table that are not settled."""

    def __init__(self, table: str, view: str, to: str) -> None:
        """`view` shows whole rows of `table`; `to` is the column that says where a row goes."""
        # The states as in the index of open rows: only by these words does SQLite find it.
        found = f"SELECT id FROM {table} WHERE mesh = ?1 AND state IN ('queued', 'sealed')"  # noqa: S608 - our own names
        order = " ORDER BY rank, id LIMIT ?2"
        self._all = found + order
        self._by_people = f"{found} AND hop IS NULL{order}"
        self._but_for = f"{found} AND (?3 OR hop IS NULL) AND {to} NOT IN (SELECT value FROM json_each(?4)){order}"  # noqa: S608
        self._these = f"SELECT * FROM {view} WHERE id IN (SELECT value FROM json_each(?)) ORDER BY rank, id"  # noqa: S608

    def load(
        self,
        connection: sqlite3.Connection,
        mesh: MeshId,
        skip: Collection[int],
        limit: int,
        *,
        agents: bool,
        full: Sequence[str],
    ) -> list[tuple[Any, ...]]:
        """The next rows, as the view shows them.

        Args:
            skip: Ids that are in memory already, at most a few hundred.
            agents: Also what agents wrote.
            full: Peers or channels that nothing is loaded for.
        """
        most = limit + len(skip)
        if full:
            found = connection.execute(self._but_for, (mesh, most, agents, json.dumps(full)))
        else:
            found = connection.execute(self._all if agents else self._by_people, (mesh, most))
        wanted = [row[0] for row in found if row[0] not in skip][:limit]
        return connection.execute(self._these, (json.dumps(wanted),)).fetchall() if wanted else []
