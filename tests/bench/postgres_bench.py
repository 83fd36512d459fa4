"""durable_dm_per_s_pg: the load of durable_dm_per_s on PostgreSQL, on the same cores, with every commit on the disk.

The server is one that this module starts, as it comes but for the size of its buffers and of its write-ahead log. The
floor is that of durable_dm_per_s, measured in turn with it.
"""

import asyncio
import statistics
import time

import uvloop

from tests.bench import lanes, load, processes, routing
from tests.bench.report import Figure
from tests.postgres import PostgresServer, postgres_server

_QUEUED = "SELECT count(*) FROM mailbox"


def measure() -> dict[str, Figure]:
    """Floor and broker in turn, three times."""
    options = {"shared_buffers": "256MB", "max_wal_size": "4GB"}
    with postgres_server(**options) as server:
        return uvloop.run(_measure(server))


async def _measure(server: PostgresServer) -> dict[str, Figure]:
    url = server.database()

    async def until_deleted() -> float:
        started = time.perf_counter()
        while await asyncio.to_thread(server.sql, _QUEUED, url) != "0":
            if time.perf_counter() - started > load.STALL_S:
                raise load.MessageLost("acknowledged messages are still stored")
        return time.perf_counter() - started

    with processes.directory() as path, processes.python_server("tests.bench.floor_server") as floor:
        with processes.broker(path, limits=routing.NO_LIMITS, database=url) as broker:
            mesh = await lanes.found_on(broker.url, routing.LINKS)
            speakers = [mesh.speaker(index) for index in range(routing.LINKS)]
            to_broker = await lanes.member_lanes(broker.url, mesh, speakers)
            to_floor = await lanes.floor_lanes(floor.url, [speaker.peer for speaker in speakers])
            await routing.closed(to_broker, mesh, speakers, routing.WARM_UP_PER_LINK)
            await routing.closed(to_floor, mesh, speakers, routing.WARM_UP_PER_LINK)
            routed, durable, database_us = [], [], []
            for turn in range(routing.ROUNDS):
                routed.append(await routing.one_round(to_floor, mesh, speakers, floor))
                used = _server_cpu_s(server)
                durable.append(await routing.one_round(to_broker, mesh, speakers, broker, until_deleted))
                messages = routing.LINKS * routing.MESSAGES_PER_LINK
                database_us.append((_server_cpu_s(server) - used) / messages * 1e6)
                rates = f"floor {routed[-1][0]:,.0f}/s, broker {durable[-1][0]:,.0f}/s"
                print(f"  round {turn + 1}: {rates}, {database_us[-1]:.0f} µs of PostgreSQL's", flush=True)
            lanes.close(to_broker + to_floor)
    rate, spent = statistics.median(rate for rate, _ in durable), statistics.median(cpu for _, cpu in durable)
    return {
        "durable_dm_per_s_pg": Figure(
            rate,
            "msg/s",
            statistics.median(rate for rate, _ in routed),
            f"{spent:.0f} µs of the broker's CPU per message, {statistics.median(database_us):.0f} µs of PostgreSQL's",
        )
    }


def _server_cpu_s(server: PostgresServer) -> float:
    return processes.family_cpu_s(server.pid, server.processes())
