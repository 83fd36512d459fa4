"""N03: what the broker's database says about people, column by column and key by key."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from claudemesh.broker.app import Broker
from claudemesh.broker.config import Settings
from claudemesh.listen import Listen
from claudemesh.protocol import messages
from claudemesh.protocol.audit_rows import EVENT_TYPES, REASONS
from tests.attacks.wire_mesh import WireMesh

AUDIT_COLUMNS = {
    "id",
    "mesh_id",
    "event_type",
    "actor_peer_id",
    "target_peer_id",
    "metadata",
    "created_at",
    "prev_hash",
    "hash",
}
METADATA_KEYS = {"size_class", "priority", "count", "reason"}
PRESENCE_COLUMNS = {
    "mesh_id",
    "peer_id",
    "session_id",
    "sid",
    "pid",
    "cwd",
    "status",
    "connected_at",
    "last_seen",
    "link",
}


async def converse(database: Path) -> None:
    """Everything that leaves a trace: joins, messages, refusals, acknowledgements, a revocation."""
    async with Broker(Settings(listen=Listen("127.0.0.1", 0), database=database)) as broker:
        mesh = await WireMesh(f"ws://127.0.0.1:{broker.port}/ws").found()
        bob, carol = await mesh.member("bob"), await mesh.member("carol")
        async with bob.dial(mesh.url) as bobs, mesh.owner.dial(mesh.url) as alices:
            await alices.send(mesh.owner.write(bob.id, bob.box.public, "hello", prio="now").frame)
            await alices.send(mesh.owner.write(carol.id, carol.box.public, "later").frame)
            push = await bobs.expect(messages.Push)
            await bobs.send(messages.Ack(q=[one.q for one in push.d]))
            await alices.send(mesh.owner.write(bob.id, bob.box.public, "nobody").altered(to="ab" * 32).frame)
            await alices.expect(messages.Refused)
            await bobs.send(messages.ListPeers(rid=1))
            await bobs.expect(messages.Peers)
        await mesh.extend(mesh.owner.entry("revoke", who=carol.id, why="removed"))


def rows(database: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def columns(database: Path, table: str) -> set[str]:
    return {row[1] for row in rows(database, f"PRAGMA table_info({table})")}


async def test_n03_audit_and_presence_have_the_documented_columns_and_no_other(tmp_path: Path) -> None:
    """N03: exactly the FAQ's columns and the chain; metadata is a closed list of closed values."""
    database = tmp_path / "broker.db"
    await converse(database)

    audit = rows(database, "SELECT event_type, actor_peer_id, target_peer_id, metadata FROM audit_log")
    metadata = [json.loads(row[3]) for row in audit]

    assert columns(database, "audit_log") == AUDIT_COLUMNS
    assert columns(database, "presence") == PRESENCE_COLUMNS
    assert {"send", "acknowledge", "append"} <= {row[0] for row in audit} <= set(EVENT_TYPES)
    assert all(len(peer or "") in (0, 16) for row in audit for peer in row[1:3])
    assert {key for one in metadata for key in one} <= METADATA_KEYS
    assert {one["reason"] for one in metadata if "reason" in one} <= set(REASONS)
    assert all(isinstance(one.get("count", 0), int) and one.get("size_class", 0) <= 64 for one in metadata)


async def test_n03_no_other_table_has_room_for_a_name_or_a_text(tmp_path: Path) -> None:
    """N03: every table and column of the schema is known here, so that a new one is looked at."""
    database = tmp_path / "broker.db"
    await converse(database)

    tables = {
        row[0]
        for row in rows(database, "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
    }
    named = {column for table in tables for column in columns(database, table)}

    assert len(tables) >= 6
    assert not {column for column in named if any(word in column for word in ("name", "text", "title", "label"))}
