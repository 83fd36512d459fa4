"""A commit whose answer is lost: nobody knows whether it took effect (docs/spec/cluster.md §6)."""

import asyncio
import copy
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from claudemesh.broker.app import Broker, Shared
from claudemesh.broker.store.base import FannedOut, FanOut, Leased, Stored, Submission
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.crypto import statements
from claudemesh.errors import LocalError, Refused
from claudemesh.protocol import messages
from claudemesh.protocol.roster import GENERAL
from tests import wire_client as wire
from tests.brokers import settings
from tests.clusters import Cluster, local_cluster


class Forgetful(SqliteStore):
    """A store that carries out a call, and loses its answer when it is told to."""

    loses = ""

    def _lose(self, call: str) -> None:
        if call == self.loses:
            self.loses = ""
            raise LocalError("database_unreachable")

    async def append(self, submissions: Sequence[Submission], *more: Any) -> list[Stored]:
        answers = await super().append(submissions, *more)
        self._lose("append")
        return answers

    async def fan_out(self, fan_outs: Sequence[FanOut], *more: Any) -> list[FannedOut]:
        answers = await super().fan_out(fan_outs, *more)
        self._lose("fan_out")
        return answers

    async def lease(self, *given: Any) -> list[Leased]:
        rows = await super().lease(*given)
        self._lose("lease")
        return rows

    async def append_entries(self, *given: Any, **more: Any) -> bool:
        was_appended = await super().append_entries(*given, **more)
        self._lose("append_entries")
        return was_appended


@pytest.mark.parametrize("kind", ["append", "fan_out"])
async def test_what_was_leased_by_a_lost_answer_is_pushed_all_the_same(tmp_path: Path, kind: str) -> None:
    """The sender is refused and repeats it; the row must not stay with a link that was never given it."""
    async with local_cluster(tmp_path, Forgetful) as cluster:
        node = await cluster.start()
        owner, bob = await wire.mesh_of(node.url, 2)
        async with wire.member(node.url, owner) as owners, wire.member(node.url, bob) as bobs:
            await bobs.quiet(messages.Push)  # its mailbox is drained: what comes now is leased as it is stored
            letter = owner.envelope(bob.id) if kind == "append" else owner.post(GENERAL)
            node._store.loses = kind  # type: ignore[attr-defined]

            with pytest.raises(Refused) as refused:
                await owners.submit(letter)
            row = await owners.submit(letter)
            async with asyncio.timeout(10):
                [delivery] = await bobs.deliveries(1)
            await bobs.acknowledge(delivery)
            alone = await bobs.quiet(messages.Push, 1.5)

    assert refused.value.code == "storage"
    assert row["id"] == letter.id
    assert alone


async def test_a_lost_answer_to_a_lease_does_not_keep_its_rows(tmp_path: Path) -> None:
    """They are let go, and leased again."""
    async with local_cluster(tmp_path, Forgetful) as cluster:
        node = await cluster.start()
        owner, bob = await wire.mesh_of(node.url, 2)
        async with wire.member(node.url, owner) as owners:
            for _ in range(3):
                await owners.submit(owner.envelope(bob.id))
            node._store.loses = "lease"  # type: ignore[attr-defined]
            async with wire.member(node.url, bob) as bobs:
                async with asyncio.timeout(10):
                    deliveries = await bobs.deliveries(3)

    assert len({one.q for one in deliveries}) == 3


@pytest.mark.parametrize("nodes", ["alone", "cluster"])
async def test_a_revocation_whose_answer_was_lost_holds_all_the_same(tmp_path: Path, nodes: str) -> None:
    """Whoever was removed loses its link although nobody appends the entry again, and the others learn of it."""
    async with broker_of(tmp_path, nodes) as node:
        owner, bob = await wire.mesh_of(node.url, 2)
        async with wire.member(node.url, owner) as owners, wire.member(node.url, bob) as bobs:
            entry = owner.entry("revoke", who=bob.id, why="stolen")
            node._store.loses = "append_entries"  # type: ignore[attr-defined]

            with pytest.raises(Refused) as refused:
                await owners.append(entry)
            closing = await bobs.ended()
            log = await owners.expect(messages.Log)
            with pytest.raises(Refused) as again:
                await owners.append(entry)

    assert refused.value.code == "storage"
    assert isinstance(closing, messages.Closing)
    assert closing.code == "revoked"
    assert log.entries == [entry]
    assert again.value.code == "cas"


async def test_a_database_that_lost_its_end_and_grew_to_the_same_length_is_read_again(tmp_path: Path) -> None:
    """A standby that lagged was promoted under running nodes: none of them extends what is not there any more."""
    async with local_cluster(tmp_path) as cluster:
        one, two = await cluster.start(), await cluster.start()
        owner, bob = await wire.mesh_of(one.url, 2)
        rolled_back = copy.deepcopy(owner)
        before = await mesh_row(cluster)
        async with wire.member(one.url, owner) as link:
            await link.append(owner.invite(wire.random_key()))
        async with wire.member(two.url, bob):
            pass
        await restore_mesh_row(cluster, before)

        async with wire.member(one.url, rolled_back) as link:
            entry = rolled_back.invite(wire.random_key())
            await link.append(entry)
            rolled_back.follow([entry])
        async with wire.member(two.url, rolled_back) as link:
            assert link.opened is not None
            signed = statements.open_statement(link.opened.sth, "sth")
            expected = rolled_back.roster.seq, rolled_back.roster.head
            await link.append(rolled_back.invite(wire.random_key()))
        newcomer = wire.Identity()
        async with wire.dial(one.url, wire.hello(rolled_back)) as link:
            log = await link.request(messages.Log, messages.Sync, seq=0)
            newcomer.follow(log.entries)

    assert (signed["seq"], signed["head"]) == expected
    assert newcomer.roster.seq == rolled_back.roster.seq + 1


async def mesh_row(cluster: Cluster) -> tuple[Any, ...]:
    """How long the only mesh is, and its signed head."""
    assert isinstance(cluster._store, SqliteStore)
    select = "SELECT length, head_at, head FROM meshes"
    return await cluster._store._database.read(lambda connection: connection.execute(select).fetchone())


async def restore_mesh_row(cluster: Cluster, row: tuple[Any, ...]) -> None:
    """Forget the entries that came since."""
    assert isinstance(cluster._store, SqliteStore)

    def forget(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM roster_entries WHERE seq >= ?", row[:1])
        connection.execute("UPDATE meshes SET length = ?, head_at = ?, head = ?", row)

    await cluster._store._database.write(forget)


@asynccontextmanager
async def broker_of(directory: Path, nodes: str) -> AsyncIterator[Broker]:
    """A broker that is alone on a forgetful store, or one node of several."""
    if nodes == "cluster":
        async with local_cluster(directory, Forgetful) as cluster:
            yield await cluster.start()
        return
    store = Forgetful(directory / "alone.db")
    await store.open()
    async with Broker(settings(directory), shared=Shared(store, None)) as broker:
        yield broker
    await store.close()
