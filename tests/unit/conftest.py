"""What several unit tests stand on."""

import sqlite3
from collections.abc import Iterator

import pytest

from claudemesh.database import load_migrations


@pytest.fixture
def journal() -> Iterator[sqlite3.Connection]:
    """A peer's journal in memory: the schema as it is shipped, every step of it."""
    connection = sqlite3.connect(":memory:")
    for step in load_migrations("claudemesh.peer.journal.migrations"):
        connection.executescript(step.sql)
    yield connection
    connection.close()
