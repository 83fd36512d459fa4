"""A broker of two nodes under attack, whole and broken (docs/spec/cluster.md §4)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from claudemesh.broker.store.sqlite import SqliteStore
from tests.attacks import cluster_attacks
from tests.clusters import real_cluster
from tests.nats_server import nats_server
from tests.postgres import postgres_server


@contextmanager
def no_compare_and_swap() -> Iterator[None]:
    """The store says that entries are stored, also when another node was faster."""
    original = SqliteStore.append_entries

    async def append_entries(self: SqliteStore, *args: Any, **fields: Any) -> bool:
        await original(self, *args, **fields)
        return True

    with mock.patch.object(SqliteStore, "append_entries", append_entries):
        yield


async def test_n07_two_nodes_never_sign_two_heads_for_one_length(tmp_path: Path) -> None:
    """N07: whoever is slower is refused with `cas`, and every head that is handed out is of one chain."""
    outcome = await cluster_attacks.append_on_two_nodes_at_once(tmp_path)

    assert not outcome.succeeded
    assert outcome.codes == {"cas"}


async def test_n07_succeeds_against_a_build_without_compare_and_swap(tmp_path: Path) -> None:
    """N07 proves something: broken, the second node signs a head of its own."""
    with no_compare_and_swap():
        outcome = await cluster_attacks.append_on_two_nodes_at_once(tmp_path)

    assert outcome.succeeded


async def test_n07_holds_on_a_real_database_and_bus(tmp_path: Path) -> None:
    """N07 on PostgreSQL and NATS."""
    with postgres_server() as postgres:
        async with nats_server() as nats:
            async with real_cluster(tmp_path, postgres.database(), nats) as cluster:
                outcome = await cluster_attacks.race(cluster)

    assert not outcome.succeeded
    assert outcome.codes == {"cas"}
