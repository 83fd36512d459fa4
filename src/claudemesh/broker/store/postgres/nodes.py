"""The nodes of one database: brokers that have joined, each alive while it beats.

Each holds an advisory lock on its number from its writing connection, so that a process that was killed is known to be
gone before its heartbeat is missed. All times are of the server's clock.
"""

from collections.abc import Collection, Sequence
from typing import Final

from claudemesh.broker.store.base import Beat, LinkId, Node, NodeId
from claudemesh.broker.store.postgres import presence
from claudemesh.broker.store.postgres.connection import Connection, connect, translated
from claudemesh.broker.store.postgres.transaction import Transaction
from claudemesh.broker.store.url import DatabaseUrl
from claudemesh.errors import LocalError
from claudemesh.types import BrokerId, UnixMillis

LINK_BITS: Final = 32
SILENT_MS: Final = 2_000
"""A node that has neither its lock nor said for so long that it lives is gone, for one that joins."""
JOIN_ATTEMPTS: Final = 12
JOIN_PAUSE_S: Final = 0.25

_HOLD_TABLE: Final = "LOCK TABLE nodes IN SHARE ROW EXCLUSIVE MODE"
_OTHERS: Final = """
    SELECT node, broker, alone, beat_at < clock_timestamp() - $1::bigint * interval '1 millisecond',
        EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND classid::bigint = hashtext('claudemesh node')::bigint & 4294967295 AND objid::bigint = node)
    FROM nodes ORDER BY node
"""
_ADD: Final = "INSERT INTO nodes (broker, alone) VALUES ($1, $2) RETURNING node"
_TAKE: Final = "SELECT pg_advisory_lock_shared(hashtext('claudemesh node'), $1::bigint::int)"
_DROP: Final = "SELECT pg_advisory_unlock_shared(hashtext('claudemesh node'), $1::bigint::int)"
_BEAT: Final = "UPDATE nodes SET beat_at = clock_timestamp() WHERE node = $1"
_CLOCK: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_LET_GO: Final = "UPDATE nodes SET beat_at = 'epoch' WHERE node = ANY ($1::bigint[])"
_LATE: Final = """
    SELECT node FROM nodes WHERE node <> $1 AND beat_at < clock_timestamp() - $2::bigint * interval '1 millisecond'
    ORDER BY node FOR UPDATE SKIP LOCKED
"""
_END_LEASES: Final = "DELETE FROM leases WHERE link >= $1 AND link < $2"
_REMOVE: Final = "DELETE FROM nodes WHERE node = ANY ($1::bigint[])"


async def join(transaction: Transaction, broker: BrokerId, alone: bool, patient: bool) -> Node | None:
    """Become a node; None when one that is in the way may be gone, and the caller is patient."""
    await transaction.execute(_HOLD_TABLE)
    dead = []
    for node, key, is_alone, is_silent, has_lock in await transaction.fetch(_OTHERS, SILENT_MS):
        if is_silent and not has_lock:
            dead.append(node)
        elif key != broker or alone or is_alone:
            if patient and not has_lock:
                return None
            raise (
                LocalError("node_key")
                if key != broker
                else LocalError("config_locked", "another broker uses this database")
            )
    if alone:  # who was connected to the broker before may come back to this one without joining anew
        await transaction.execute(_REMOVE, dead)
    else:
        await end(transaction, dead)
    [(number,)] = await transaction.fetch(_ADD, broker, alone)
    await transaction.fetch(_TAKE, number)
    return Node(NodeId(number), LinkId(number << LINK_BITS))


async def beat(transaction: Transaction, node: NodeId, lapse_ms: int | None) -> tuple[Beat, list[NodeId]]:
    """Say that a node lives; returns also which others were buried."""
    is_alive = await transaction.execute(_BEAT, node) == 1
    late: list[NodeId] = []
    if is_alive and lapse_ms is not None:
        late = [NodeId(number) for (number,) in await transaction.fetch(_LATE, node, lapse_ms)]
        await end(transaction, late)
    [(at,)] = await transaction.fetch(_CLOCK)
    return Beat(UnixMillis(at), is_alive, len(late)), late


async def end(transaction: Transaction, nodes: Sequence[NodeId]) -> None:
    """Nodes are no more: with their rows their leases are void, and their sessions end here."""
    if nodes:
        await transaction.execute(_REMOVE, list(nodes))
        for node in nodes:
            await presence.clear_links(transaction, *links_of(node))
            await transaction.execute(_END_LEASES, *links_of(node))


async def leave(transaction: Transaction, node: NodeId) -> None:
    """A node ends by itself."""
    await end(transaction, [node])
    await transaction.fetch(_DROP, node)


async def let_go(transaction: Transaction, joined: Sequence[NodeId]) -> None:
    """Whoever joins next need not wait to see whether these nodes are alive; their sessions stay."""
    await transaction.execute(_LET_GO, list(joined))


async def reconnect(url: DatabaseUrl, joined: Collection[NodeId]) -> Connection:
    """Open a connection that holds the locks of nodes, in place of one that was lost."""
    connection = await connect(url)
    try:
        with translated():
            for node in list(joined):
                await connection.fetch(_TAKE, node)
    except BaseException:
        connection.drop()
        raise
    return connection


def links_of(node: NodeId) -> tuple[LinkId, LinkId]:
    """The first number of a node's links, and the first beyond them."""
    return LinkId(node << LINK_BITS), LinkId((node + 1) << LINK_BITS)
